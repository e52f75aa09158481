"""Registry of the figures of a calibration: contents, settings and defaults of each.

What is not asked for follows from the fitted region, so every figure suits a calibration of any scale. The
paper is Busbridge et al. 2025 (arXiv 2502.08606).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import Range
from scaling.costs.scenarios import BOTH, INFERENCE, SCENARIOS, Scenario
from scaling.errors import InputError
from scaling.figures import frontier, optima
from scaling.figures.chart import Array, Chart
from scaling.figures.labels import phrase
from scaling.figures.slices import plane, section

POINTS, SIDE, BUDGETS = 120, 60, 25
"""Along a line, along a side of a map, and of budgets at each of which everything is decided anew."""
RATIO = 20.0
"""Tokens per parameter of a model that a figure holds, as the paper does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureOptions:
    """Settings of a figure; those that are empty follow from the calibration."""

    calibration: Calibration
    students: tuple[float, ...] = ()
    """Non-embedding parameters."""
    teachers: tuple[float, ...] = ()
    """Non-embedding parameters."""
    tokens: tuple[float, ...] = ()
    """Student tokens."""
    ratios: tuple[float, ...] = ()
    """Student tokens per parameter."""
    teacher_losses: tuple[float, ...] = ()
    """nats/token: the ends of an axis."""
    budgets: tuple[float, ...] = ()
    """FLOPs: the lines of an IsoFLOP figure, the ends of an axis, or one."""
    scenarios: tuple[Scenario, ...] = ()
    law: str | None = None

    def sizes(self, count: int = 4) -> tuple[float, ...]:
        """Student sizes, for lines or panels."""
        return self.students or _spread(self._students(), count)

    def size_axis(self) -> Array:
        """Student sizes, along an axis."""
        return _between(self.students or self._students(), SIDE, "students")

    def token_levels(self, count: int = 4) -> tuple[float, ...]:
        """Student tokens, for lines or panels."""
        return self.tokens or _spread(self._tokens(), count)

    def token_axis(self) -> Array:
        """Student tokens, along an axis."""
        return _between(self.tokens or self._tokens(), SIDE, "tokens")

    def teacher_levels(self, count: int = 4) -> tuple[float, ...]:
        """Teacher sizes, for lines or panels."""
        return self.teachers or _spread(self._teachers(), count)

    def teacher_axis(self, points: int = POINTS) -> Array:
        """Teacher sizes, along an axis."""
        return _between(self.teachers or self._teachers(), points, "teachers")

    def loss_axis(self, points: int = POINTS) -> Array:
        """Teacher losses along an axis, a little beyond those that were fitted."""
        if self.teacher_losses:
            return _between(self.teacher_losses, points, "teacher losses")
        supervised = self.calibration.supervised
        best = float(supervised.loss(self._teachers()[1], RATIO * self._teachers()[1]))
        worst = float(supervised.loss(self._students()[0], RATIO * self._students()[0]))
        low, high = self.calibration.region.teacher_loss or (best, worst)
        return np.linspace(max(0.95 * low, supervised.E * 1.01), 1.05 * high, points)

    def budget_axis(self, points: int = BUDGETS) -> Array:
        """Budgets along an axis."""
        return _between(self.budgets or self._budgets(), points, "budgets")

    def budget_levels(self, count: int = 4) -> tuple[float, ...]:
        """Budgets of IsoFLOP lines, in the middle of what the runs span."""
        low, high = self._budgets()
        return self.budgets or _spread(((low**3 * high) ** 0.25, (low * high**3) ** 0.25), count)

    def scenario(self, default: Scenario = BOTH) -> Scenario:
        """Return the one scenario of a figure that shows one.

        Raises:
            InputError: for several.
        """
        if len(self.scenarios) > 1:
            raise InputError("this figure shows one scenario: name one")
        return self.scenarios[0] if self.scenarios else default

    def _students(self) -> Range:
        region = self.calibration.region
        return _known(region.student_params or region.params, "student sizes", "--students")

    def _teachers(self) -> Range:
        region = self.calibration.region
        known = region.teacher_params or region.params or region.student_params
        return _known(known, "teacher sizes", "--teachers")

    def _tokens(self) -> Range:
        region = self.calibration.region
        return _known(region.student_tokens or region.tokens, "student tokens", "--tokens")

    def _budgets(self) -> Range:
        (small, large), (few, many) = self._students(), self._tokens()
        flops = self.calibration.architecture.training_flops
        return float(flops(small, few)), float(flops(large, many))


def _between(ends: tuple[float, ...], points: int, what: str) -> Array:
    if len(ends) < 2:
        raise InputError(f"{what}: they are an axis here, so give its two ends, not {ends[0]:g} alone")
    return np.geomspace(min(ends), max(ends), points)


def _known(found: Range | None, what: str, option: str) -> Range:
    if found is None:
        raise InputError(f"the calibration does not say which {what} were fitted: give {option}")
    return found


def _spread(ends: Range, count: int) -> tuple[float, ...]:
    """Return about ``count`` values between the ends, to two digits inside."""
    low, high = ends
    inner = [float(f"{value:.2g}") for value in np.geomspace(low, high, count)[1:-1]]
    return tuple(dict.fromkeys((low, *inner, high)))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of figure."""

    words: str
    chart: Callable[[FigureOptions], Chart]
    takes: tuple[str, ...]
    """The fields of :class:`FigureOptions` that it takes, beside the calibration and the law."""


def _teacher_loss(opts: FigureOptions) -> Chart:
    lines: Any = ("student_ratio", opts.ratios) if opts.ratios else ("student_tokens", opts.token_levels())
    panels = ("student_params", opts.sizes(3))
    return section(opts.calibration, "teacher_loss", opts.loss_axis(), lines, panels, law=opts.law)


def _student_isoflop(opts: FigureOptions) -> Chart:
    return section(
        opts.calibration, "student_params", opts.size_axis(), ("student_compute", opts.budget_levels()),
        ("teacher_params", opts.teacher_levels(3)), {"teacher_ratio": RATIO}, opts.law,
    )  # fmt: skip


def _teacher_isoflop(opts: FigureOptions) -> Chart:
    return section(
        opts.calibration, "teacher_params", opts.teacher_axis(), ("teacher_compute", opts.budget_levels()),
        ("student_params", opts.sizes(3)), {"student_ratio": RATIO}, opts.law,
    )  # fmt: skip


def _capacity_gap(opts: FigureOptions) -> Chart:
    return section(
        opts.calibration, "teacher_params", opts.teacher_axis(),
        ("student_ratio", opts.ratios or (20.0, 40.0, 80.0, 160.0, 320.0)),
        ("student_params", opts.sizes(3)), {"teacher_ratio": RATIO}, opts.law,
    )  # fmt: skip


def _gain(opts: FigureOptions) -> Chart:
    return plane(
        opts.calibration, "student_tokens", opts.token_axis(), "student_params", opts.size_axis(),
        ("teacher_params", opts.teacher_levels()), {"teacher_ratio": RATIO}, opts.law, "gain",
    )  # fmt: skip


def _gain_by_compute(opts: FigureOptions) -> Chart:
    return plane(
        opts.calibration, "student_compute", opts.budget_axis(SIDE), "student_params", opts.size_axis(),
        ("teacher_params", opts.teacher_levels()), {"teacher_ratio": RATIO}, opts.law, "gain",
    )  # fmt: skip


def _gain_by_teacher(opts: FigureOptions) -> Chart:
    return plane(
        opts.calibration, "teacher_compute", opts.budget_axis(SIDE), "teacher_params",
        opts.teacher_axis(SIDE), ("student_params", opts.sizes()), {"student_ratio": RATIO}, opts.law,
        "gain",
    )  # fmt: skip


def _best_teacher_by_size(opts: FigureOptions) -> Chart:
    return plane(
        opts.calibration, "student_params", opts.size_axis(), "teacher_loss", opts.loss_axis(SIDE),
        ("student_tokens", opts.token_levels()), law=opts.law, ridge=True,
    )  # fmt: skip


def _best_teacher_by_tokens(opts: FigureOptions) -> Chart:
    return plane(
        opts.calibration, "student_tokens", opts.token_axis(), "teacher_loss", opts.loss_axis(SIDE),
        ("student_params", opts.sizes()), law=opts.law, ridge=True,
    )  # fmt: skip


def _teacher_at_a_price(opts: FigureOptions) -> Chart:
    charts = [
        plane(
            opts.calibration, "teacher_params", opts.teacher_axis(SIDE), "teacher_loss",
            opts.loss_axis(SIDE), ("student_params", opts.sizes()),
            {"budget": budget, "logits": 1.0}, opts.law, ridge=True,
        )
        for budget in opts.budgets or (_one_budget(opts),)
    ]  # fmt: skip
    if len(charts) == 1:
        return charts[0]
    return replace(
        charts[0],
        panels=tuple(
            replace(panel, title=f"{panel.title}, {phrase('budget', budget)}")
            for budget, of_budget in zip(opts.budgets, charts, strict=True)
            for panel in of_budget.panels
        ),
        title=f"{opts.calibration.name}, {opts.law or opts.calibration.default} law",
        columns=len(charts[0].panels),
    )


def _one_budget(opts: FigureOptions) -> float:
    return _one(opts.budgets, "budget") or float(np.sqrt(np.prod(opts.budget_axis(2))))


def _one(values: tuple[float, ...], what: str) -> float | None:
    if len(values) > 1:
        raise InputError(f"this figure shows one {what}: name one")
    return values[0] if values else None


def _scenarios(opts: FigureOptions) -> Chart:
    scenarios = opts.scenarios or tuple(SCENARIOS.values())
    return frontier.over_scenarios(opts.calibration, scenarios, opts.sizes(), opts.budget_axis(), opts.law)


def _crossovers(opts: FigureOptions) -> Chart:
    low, high = opts.budget_axis(2) * (1.0 if opts.budgets else np.array([0.1, 1e3]))
    return frontier.crossovers(opts.calibration, opts.sizes(9), np.geomspace(low, high, 40), opts.law)


def _decisions(opts: FigureOptions) -> Chart:
    return optima.over_budgets(opts.calibration, opts.scenario(), opts.sizes(), opts.budget_axis(), opts.law)


def _by_scenario(name: str) -> Callable[[FigureOptions], Chart]:
    def draw(opts: FigureOptions) -> Chart:
        scenarios = opts.scenarios or tuple(SCENARIOS.values())
        return optima.by_scenario(
            opts.calibration, name, scenarios, opts.sizes(3), opts.budget_axis(), opts.law
        )

    return draw


def _shares(opts: FigureOptions) -> Chart:
    return optima.shares_over_budgets(
        opts.calibration, opts.scenario(), opts.sizes(3), opts.budget_axis(), opts.law
    )


def _map(opts: FigureOptions) -> Chart:
    budgets, sizes = opts.budget_axis(SIDE), opts.size_axis()
    return optima.over_the_plane(opts.calibration, opts.scenario(INFERENCE), sizes, budgets, opts.law)


def _savings(opts: FigureOptions) -> Chart:
    free = tuple(scenario for scenario in SCENARIOS.values() if not scenario.pretraining)
    return optima.savings(
        opts.calibration, opts.scenarios or free, opts.sizes(), opts.budget_axis(40), opts.law
    )


def _near(opts: FigureOptions) -> Chart:
    size = _one(opts.students, "student") or opts.sizes(3)[1]
    return optima.near_optimum(opts.calibration, opts.scenario(), size, _one_budget(opts), opts.law)


BY_SCENARIO = ("students", "budgets", "scenarios")
KINDS = {
    "teacher-loss": Kind(
        "student loss over teacher loss (1, 3b)", _teacher_loss,
        ("students", "tokens", "ratios", "teacher_losses"),
    ),
    "student-isoflop": Kind(
        "student loss over student size at fixed compute (2)", _student_isoflop,
        ("students", "teachers", "budgets"),
    ),
    "teacher-isoflop": Kind(
        "student loss over teacher size at fixed teacher compute (3)", _teacher_isoflop,
        ("students", "teachers", "budgets"),
    ),
    "capacity-gap": Kind(
        "student loss over teacher size (4)", _capacity_gap, ("students", "teachers", "ratios")
    ),
    "gain": Kind(
        "gain over tokens and student size, by teacher (6)", _gain, ("students", "teachers", "tokens")
    ),
    "gain-by-compute": Kind(
        "gain over the student's compute and size, by teacher (14)", _gain_by_compute,
        ("students", "teachers", "budgets"),
    ),
    "gain-by-teacher": Kind(
        "gain over the teacher's compute and size, by student (13b)", _gain_by_teacher,
        ("students", "teachers", "budgets"),
    ),
    "best-teacher-by-size": Kind(
        "student loss over student size and teacher loss (7)", _best_teacher_by_size,
        ("students", "tokens", "teacher_losses"),
    ),
    "best-teacher-by-tokens": Kind(
        "student loss over tokens and teacher loss (15)", _best_teacher_by_tokens,
        ("students", "tokens", "teacher_losses"),
    ),
    "teacher-at-a-price": Kind(
        "student loss over teacher size and loss, logits paid from each budget (16)", _teacher_at_a_price,
        ("students", "teachers", "teacher_losses", "budgets"),
    ),
    "scenarios": Kind(
        "loss over compute, every scenario beside direct training (8, 17)", _scenarios,
        ("students", "budgets", "scenarios"),
    ),
    "decisions": Kind(
        "the optimal teacher and tokens over compute (9, 20, 22, 25, 28)", _decisions,
        ("students", "budgets", "scenarios"),
    ),
    "shares": Kind(
        "the optimal allocation of compute (23, 26, 29)", _shares, ("students", "budgets", "scenarios")
    ),
    **{
        kind: Kind(f"{words} over compute, every scenario ({number})", _by_scenario(name), BY_SCENARIO)
        for kind, words, number, name in (
            ("best-teacher-loss", "the best teacher's loss", 18, "teacher_loss"),
            ("best-student-tokens", "the student's tokens at the optimum", 30, "student_tokens"),
            ("best-teacher-tokens", "the best teacher's tokens", 31, "teacher_tokens"),
            ("best-teacher-size", "the best teacher's size", 32, "teacher_params"),
        )
    },
    "map": Kind(
        "the optimum over compute and student size (19, 21, 24, 27)", _map,
        ("students", "budgets", "scenarios"),
    ),
    "savings": Kind(
        "compute and tokens for a loss, against direct training (33, 34)", _savings,
        ("students", "budgets", "scenarios"),
    ),
    "crossovers": Kind(
        "where direct training catches up, over student sizes", _crossovers, ("students", "budgets")
    ),
    "near": Kind(
        "what teachers near the best cost in loss", _near, ("students", "budgets", "scenarios")
    ),
}  # fmt: skip
"""Kinds of figures by name; in brackets the paper's figures of the same kind."""


def chart(kind: str, opts: FigureOptions) -> Chart:
    """Return the figure of this kind.

    Raises:
        InputError: for an unknown kind, or if it is asked for what it does not heed.
    """
    if kind not in KINDS:
        raise InputError(f"no figure {kind!r}; there are {', '.join(KINDS)}")
    opts.calibration.law(opts.law)
    given = [each.name for each in fields(opts) if each.name not in ("calibration", "law")]
    ignored = [name for name in given if getattr(opts, name) and name not in KINDS[kind].takes]
    if ignored:
        raise InputError(f"the figure {kind} takes {', '.join(KINDS[kind].takes)}, not {', '.join(ignored)}")
    return KINDS[kind].chart(opts)
