"""Losses of a law along one variable or over two, everything else held: the family of Figures 1-7 and
13-16 of Busbridge et al. 2025 (arXiv 2502.08606), for any calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scaling.calibration.calibration import Calibration
from scaling.figures.chart import Array, Chart, Field, Mask, Panel, Series, orders
from scaling.figures.labels import AXES, phrase
from scaling.figures.law_inputs import law_inputs, near_runs
from scaling.laws import AnySupervisedLaw, DistillationLaw
from scaling.planner.uncertainty import COVERAGE

Levels = tuple[str, Sequence[float]]
"""A variable and the values it takes, one a line or a panel."""
DRAWS = 200
"""Draws that a band is taken from."""
BAND = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
BAND_NOTE = "bands: 90 % of fitted curves; thin lines: more than 1.5 times beyond the fitted runs"
HATCH_NOTE = "hatched: more than 1.5 times beyond the fitted runs"
CONTOURS = 10
SIDE_LEVELS = 5
"""Levels on either side of zero, where contours diverge."""
LOG_STEPS = (
    (7.0, (1.0,)),
    (2.5, (1.0, 3.0)),
    (1.0, (1.0, 2.0, 5.0)),
    (-np.inf, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
)
"""Steps of levels within a decade, by the decades that the values span more than."""


def section(
    calibration: Calibration,
    over: str,
    values: Array,
    lines: Levels,
    panels: Levels,
    held: Mapping[str, float] | None = None,
    law: str | None = None,
) -> Chart:
    """Return the student's loss (nats/token) over one variable, beside its loss alone (dashed)."""
    return Chart(
        panels=tuple(
            Panel(
                title=phrase(panels[0], level),
                x=AXES[over],
                y=AXES["loss"],
                series=tuple(
                    _lines(calibration, over, values, lines, {**(held or {}), panels[0]: level}, law)
                ),
            )
            for level in panels[1]
        ),
        title=_title(calibration, law, held),
        note=f"dashed: direct training on the same tokens; {BAND_NOTE}",
    )


def _title(calibration: Calibration, law: str | None, held: Mapping[str, float] | None) -> str:
    words = [phrase(name, value) for name, value in (held or {}).items() if name in AXES]
    return "; ".join([f"{calibration.name}, {law or calibration.default} law", *words])


def _lines(
    calibration: Calibration,
    over: str,
    values: Array,
    lines: Levels,
    held: Mapping[str, float],
    law: str | None,
) -> list[Series]:
    found: list[Series] = []
    for order, level in zip(orders(len(lines[1])), lines[1], strict=True):
        given: dict[str, ArrayLike] = {**held, lines[0]: level, over: values}
        at = law_inputs(given, calibration.architecture, calibration.supervised)
        y = loss(given, calibration, law)
        low = high = None
        if calibration.draw_count:
            low, high = np.quantile(drawn(given, calibration, law), BAND, axis=0)
        alone = calibration.supervised.loss(at.student_params, at.student_tokens)
        found += [
            Series(
                label=phrase(lines[0], level), x=values, y=y, low=low, high=high,
                known=np.broadcast_to(near_runs(calibration, at), y.shape), order=order,
            ),
            Series(x=values, y=np.broadcast_to(alone, y.shape), order=order, dash="--"),
        ]  # fmt: skip
    return found


def loss(given: Mapping[str, ArrayLike], calibration: Calibration, law: str | None = None) -> Array:
    """Return the student's loss, nats/token, under the point coefficients."""
    return _loss(given, calibration, calibration.supervised, calibration.law(law))


def drawn(
    given: Mapping[str, ArrayLike], calibration: Calibration, law: str | None = None, draws: int = DRAWS
) -> Array:
    """Return the student's loss under at most about ``draws`` draws, (draws, n), nats/token."""
    step = calibration.draw_step(draws)
    return _loss(given, calibration, calibration.sampled_supervised(step), calibration.sampled_law(law, step))


def _loss(
    given: Mapping[str, ArrayLike],
    calibration: Calibration,
    supervised: AnySupervisedLaw,
    law: DistillationLaw,
) -> Array:
    at = law_inputs(given, calibration.architecture, supervised)
    with np.errstate(invalid="ignore"):  # nan where the budget does not reach
        return law.loss(at.student_params, at.student_tokens, at.teacher_loss, supervised)


def plane(
    calibration: Calibration,
    x: str,
    xs: Array,
    y: str,
    ys: Array,
    panels: Levels,
    held: Mapping[str, float] | None = None,
    law: str | None = None,
    shown: str = "loss",
    ridge: bool = False,
) -> Chart:
    """Return a quantity over two variables: ``loss``, or ``gain`` over direct training on the same tokens.

    With a ``ridge``, a line marks for every value of ``x`` the best value of ``y``.
    """
    diverging, held = shown == "gain", held or {}
    found = [_plane(calibration, x, xs, y, ys, {**held, panels[0]: level}, law) for level in panels[1]]
    values = [gain if diverging else distilled for distilled, gain, _ in found]
    contours = contour_levels(np.stack(values), diverging)
    drawn_panels = []
    for level, z, (_, _, known) in zip(panels[1], values, found, strict=True):
        field = Field(
            x=xs, y=ys, z=z, levels=contours, label=AXES[shown].label, diverging=diverging, known=known
        )  # fmt: skip
        best = (_ridge(calibration, x, xs, y, ys, {**held, panels[0]: level}, law),) if ridge else ()
        title = phrase(panels[0], level)
        drawn_panels.append(Panel(title=title, x=AXES[x], y=AXES[y], field=field, series=best))
    marked = zero_note(np.stack(values)) if diverging else ""
    marked += "line: the best teacher, with a band of 90 % of fitted curves; " if ridge else ""
    return Chart(
        panels=tuple(drawn_panels),
        title=_title(calibration, law, held),
        columns=2,
        note=marked + HATCH_NOTE,
    )


def _plane(
    calibration: Calibration, x: str, xs: Array, y: str, ys: Array, held: Mapping[str, float], law: str | None
) -> tuple[Array, Array, Mask]:
    """Return loss, gain and whether runs are near, (len(ys), len(xs)) each."""
    given: dict[str, ArrayLike] = {**held, x: xs[None, :], y: ys[:, None]}
    at = law_inputs(given, calibration.architecture, calibration.supervised)
    shape = len(ys), len(xs)
    distilled = np.broadcast_to(loss(given, calibration, law), shape)
    alone = calibration.supervised.loss(at.student_params, at.student_tokens)
    return distilled, alone - distilled, np.broadcast_to(near_runs(calibration, at), shape)


def _ridge(
    calibration: Calibration, x: str, xs: Array, y: str, ys: Array, held: Mapping[str, float], law: str | None
) -> Series:
    """Return the value of ``y`` of least loss for every value of ``x``, with its 90 % band."""
    grid = {x: np.tile(xs, len(ys)), y: np.repeat(ys, len(xs))}

    def least(losses: Array) -> Array:
        found = np.where(np.isfinite(losses), losses, np.inf).reshape(-1, len(ys), len(xs))
        return np.where(np.isfinite(found.min(axis=1)), _lowest(ys, found), np.nan)

    low = high = None
    if calibration.draw_count:
        low, high = np.quantile(least(drawn({**held, **grid}, calibration, law, 50)), BAND, axis=0)
    return Series(x=xs, y=least(loss({**held, **grid}, calibration, law))[0], low=low, high=high)


def _lowest(ys: Array, losses: Array) -> Array:
    """Return where losses (draws, len(ys), n) are least, (draws, n), by a parabola through three points."""
    at = losses.argmin(axis=1)
    inner = np.clip(at, 1, len(ys) - 2)
    before, here, after = (
        np.take_along_axis(losses, (inner + step)[:, None], axis=1)[:, 0] for step in (-1, 0, 1)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = 0.5 * (before - after) / (before - 2 * here + after)
    shift = np.where((at == inner) & np.isfinite(shift), np.clip(shift, -1, 1), at - inner)
    return np.asarray(np.interp(inner + shift, np.arange(len(ys)), ys))


def contour_levels(values: Array, diverging: bool = False, log: bool = False) -> tuple[float, ...]:
    """Return about ``CONTOURS`` round levels across the values.

    Those that diverge from zero lie closest beside it, and reach as far as the values on either side.
    """
    finite = values[np.isfinite(values)]
    if log:
        low, high = float(finite.min()), float(finite.max())
        decades = np.log10(high / low)
        steps = next(steps for least, steps in LOG_STEPS if decades > least)
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        found = [float(f"{step * power:.1g}") for power in powers for step in steps]
        inside = tuple(each for each in found if low <= each <= high)
        return inside if len(inside) > 2 else tuple(np.geomspace(low, high, 5))
    low, high = (float(np.quantile(finite, share)) for share in (0.01, 0.99))
    if diverging:
        return _signed_levels(low, high)
    step = _round_step((high - low) / CONTOURS)
    first, last = np.floor(low / step), np.ceil(high / step)
    return tuple(float(f"{step * k:.6g}") for k in np.arange(first, last + 1))


def _signed_levels(low: float, high: float) -> tuple[float, ...]:
    """Return zero, and on either side round levels up to that end, the same in both directions."""
    most = max(abs(low), abs(high), 1e-12)
    decade = np.floor(np.log10(most))
    ladder = [float(f"{step:g}e{decade - down:.0f}") for down in range(3) for step in (5, 2, 1)]
    sizes = [size for size in ladder if size <= most][:SIDE_LEVELS]
    return (
        *(-size for size in sizes if size <= -low),
        0.0,
        *(size for size in reversed(sizes) if size <= high),
    )


def zero_note(gains: Array) -> str:
    """Return the beginning of a note that says where the line of no gain is, if it is drawn."""
    if np.nanmin(gains) < 0 < np.nanmax(gains):
        return "thick line: no gain; "
    return f"distilling gains {'everywhere' if np.nanmin(gains) >= 0 else 'nowhere'} here; "


def _round_step(rough: float) -> float:
    decade = 10.0 ** np.floor(np.log10(max(rough, 1e-12)))
    return float(next(each for each in (1, 2, 2.5, 5, 10) if each * decade >= 0.999 * rough) * decade)
