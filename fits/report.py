"""The report of a fit as text: what was found, how sure it is, and what to distrust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fits.coordinates import Law
from scaling.laws import coefficients

if TYPE_CHECKING:
    from fits.estimate import Estimate
    from fits.fitting import Fit

INTERVAL = (0.05, 0.95)


def text(fit: Fit) -> str:
    """The whole report."""
    parts = [_head(fit), _coefficients(fit), *(_estimate(k, e) for k, e in fit.estimates.items())]
    parts += [_held_out(fit), _warnings(fit)]
    return "\n\n".join(part for part in parts if part)


def _head(fit: Fit) -> str:
    used = fit.table[fit.table["excluded"] == ""]
    kinds = used["kind"].value_counts()
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in ("supervised", "distillation") if kind in kinds)
    lines = [f"{fit.name}: {counted} runs, fitted in {fit.seconds:.1f} s"]
    reasons = fit.table.loc[fit.table["excluded"] != "", "excluded"].value_counts()
    lines += [f"  not used: {count} x {reason}" for reason, count in reasons.items()]
    far = fit.table[fit.table["outlier"] != ""]
    lines += [f"  outlier: {row.run}, {row.outlier} (kept)" for row in far.head(8).itertuples()]
    return "\n".join(lines)


def _coefficients(fit: Fit) -> str:
    lines = [f"{'coefficient':<28}{'value':>12}   90 % interval"]
    laws: dict[str, Law] = {"supervised": fit.supervised, **fit.distillation}
    for kind, law in laws.items():
        for name, value in coefficients(law).items():
            low, high = np.quantile(fit.draws[kind][name], INTERVAL)
            span = "fixed" if low == high else f"{low:.5g} .. {high:.5g}"
            lines.append(f"{kind + ' ' + name:<28}{float(value):>12.6g}   {span}")
    return "\n".join(lines)


def _estimate(law: str, found: Estimate) -> str:
    rows = found.model.rows
    lines = [
        f"{law}: {found.status}{f' ({found.detail})' if found.detail else ''}; "
        f"{found.agreed} of {found.starts} starts agree; condition {found.condition:.0f}"
    ]
    residual = rows.L - found.losses
    for kind, here in (
        ("supervised", slice(0, rows.supervised)),
        ("distillation", slice(rows.supervised, None)),
    ):
        if len(residual[here]) and not (kind == "supervised" and found.model.given is not None):
            rms = float(np.sqrt(np.mean(residual[here] ** 2)))
            lines.append(
                f"  {kind}: residual rms {rms:.4f} nats, noise taken as {100 * found.sigma[here][0]:.2f} %"
            )
    if found.problem.precision.any():
        spread = found.model.prior()[1]
        loose = [
            f"{name} ({100 * se / sd:.0f} %)"
            for name, se, sd in zip(found.model.names, found.standard_errors, spread, strict=True)
            if se > 0.5 * sd
        ]
        if loose:
            lines.append(
                f"  held mainly by the weak priors (share of the prior's width left): {', '.join(loose)}"
            )
    return "\n".join(lines)


def _held_out(fit: Fit) -> str:
    if not fit.held_out:
        return "held out: too few runs of a kind to leave any out"
    lines = ["held out (left out of a refit, then predicted)"]
    return "\n".join([*lines, *(f"  {held}" for held in fit.held_out)])


def _warnings(fit: Fit) -> str:
    return "\n".join(
        [*(f"note: {note}" for note in fit.notes), *(f"warning: {finding}" for finding in fit.findings)]
    )
