"""From a question and a calibration to a plan."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, named
from scaling.costs.accounting import accounting
from scaling.costs.scenarios import DESCRIPTIONS, INFERENCE, Scenario
from scaling.errors import InputError
from scaling.planner.candidates import DrawnWays, ScenarioWays, Serving, TeacherWays, Ways
from scaling.planner.evaluation import Assembly, Candidate
from scaling.planner.near_optimal import explore
from scaling.planner.optimizer import Setting, stacked
from scaling.planner.plan import Interval, Plan
from scaling.planner.question import Question
from scaling.planner.sensitivity import assumption_effect
from scaling.planner.size_search import LN_LARGEST_BUDGET, QUICK_SIZES, choose
from scaling.planner.student_family import share_teacher
from scaling.planner.teacher_catalogue import KnownTeacher, check_teacher_loss
from scaling.planner.uncertainty import interval

Array = NDArray[np.float64]
Row = tuple[str, Scenario, bool, float | None, float | None]
"""Name, scenario, whether the teacher's loss is predicted, price of a million tokens of its logits, and
FLOPs of one where they do not follow from its size."""
NESTED_DRAWS = 50
"""Draws under which decisions are taken again where a size or a budget is searched for as well."""


def plan(question: Question, calibration: Calibration | str | Path = DEFAULT_CALIBRATION) -> Plan:
    """The best distillation under each scenario, or with each known teacher, beside direct training.

    ``calibration`` may be the path of a file or the name of a published set.

    Raises :class:`~scaling.errors.InputError` for questions that have no answer.
    """
    calibration = named(calibration)
    answer = _answer(question, calibration)
    architecture = question.counting(calibration)
    counted = accounting(architecture, calibration.architecture)
    effect = assumption_effect(
        question, architecture, counted, answer, lambda each: _answer(each, calibration, ranges=False)
    )
    return replace(answer, accounting=replace(counted, effect=effect))


def _answer(question: Question, calibration: Calibration, ranges: bool = True) -> Plan:
    """The plan without what its accounting rests on; ``ranges`` of the decisions take most of the time."""
    architecture, bounds = question.counting(calibration), question.bounds(calibration)
    assembly = Assembly(question, calibration, architecture)
    distils = bool(calibration.distillation)
    if not distils and (question.law or question.teachers or question.family):
        calibration.law(question.law)  # says why there is none
    setting = Setting(
        supervised=calibration.supervised,
        law=calibration.law(question.law) if distils else None,
        architecture=architecture,
        bounds=bounds,
    )
    if question.family:
        return assembly.plan(*share_teacher(question, calibration, setting))
    return _Planner(question, calibration, setting, assembly, ranges).plan()


class _Planner:
    """One student, of given or free size, on a budget or towards a target."""

    def __init__(
        self,
        question: Question,
        calibration: Calibration,
        setting: Setting,
        assembly: Assembly,
        ranges: bool,
    ) -> None:
        self.question, self.calibration = question, calibration
        self.setting, self.assembly, self.ranges = setting, assembly, ranges
        self.serving = Serving(setting, question.lifetime_tokens)
        self.sizes = question.sizes(calibration)
        self.unreachable: dict[str, float] = {}
        self.warnings: list[str] = []

    def plan(self) -> Plan:
        directs = self._directs()
        candidates: list[Candidate] = []
        if self.question.teachers:
            candidates = self._with_known_teachers()
        elif self.calibration.distillation:
            candidates = self._under_scenarios()
        if self.unreachable and not directs and not candidates:
            raise InputError(self._out_of_reach())
        answer = self.assembly.plan(directs, candidates, self.unreachable, self.warnings)
        return answer.ranked() if self.question.teachers else answer

    def _out_of_reach(self) -> str:
        floors = {DESCRIPTIONS.get(name, name): floor for name, floor in self.unreachable.items()}
        ranked = sorted(floors.items(), key=lambda each: each[1])
        lowest = ", ".join(f"{floor:.3f} ({name})" for name, floor in ranked)
        return f"target_loss: {self.question.target_loss:g} nats/token cannot be reached; lowest: {lowest}"

    def _directs(self) -> list[tuple[float, float]]:
        """Parameters and tokens of direct training, if it can do what is asked."""
        params, budget = choose(
            self.serving.direct_loss, 1, self.sizes, self.question.budget, self.question.target_loss
        )
        if math.isinf(budget[0, 0]):
            largest = np.array([[self.sizes[1]]])
            floor = self.serving.direct_loss(largest, np.full((1, 1), math.exp(LN_LARGEST_BUDGET)))
            self.unreachable["direct training"] = float(floor[0, 0])
            return []
        if not math.isfinite(self.serving.direct_loss(params, budget)[0, 0]):
            raise InputError(
                f"budget {self.question.budget:g} FLOPs is too small to train and serve the student"
            )
        return [self._direct(params[0, 0], budget[0, 0])]

    def _direct(self, params: float, budget: float) -> tuple[float, float]:
        return float(params), self.serving.direct_tokens(params, budget)

    def _beside(self, budget: float) -> tuple[float, float]:
        """Direct training with this budget, of the best size where that is free."""
        if self.sizes[0] == self.sizes[1]:
            return self._direct(self.sizes[0], budget)
        params, _ = choose(self.serving.direct_loss, 1, self.sizes, budget, None)
        return self._direct(params[0, 0], budget)

    def _under_scenarios(self) -> list[Candidate]:
        scenarios = self.question.scenarios
        rows: list[Row] = [(each.name, each, each.pretraining > 0, None, None) for each in scenarios]
        found = self._decide(ScenarioWays(self._under(*scenarios), scenarios), rows)
        if self.question.student_params is not None and self.question.budget is not None:
            found = [self._explored(candidate) for candidate in found]
        return found

    def _under(self, *scenarios: Scenario) -> Serving:
        """The setting with the bounds that hold under each scenario, a row each."""
        each = [self.question.bounds(self.calibration, scenario) for scenario in scenarios]
        bounds = each[0] if len(each) == 1 else stacked(each)
        return Serving(replace(self.setting, bounds=bounds), self.question.lifetime_tokens)

    def _with_known_teachers(self) -> list[Candidate]:
        asked = self.question.scenarios
        logits = asked[0] if len(asked) == 1 else INFERENCE
        scenario = Scenario("known_teacher", logits.logits, 0.0)
        teachers = self._same_vocabulary(self.question.teachers)
        for teacher in teachers:
            if teacher.loss is not None:
                check_teacher_loss(self.calibration, teacher.loss, f"teacher {teacher.name}")
        rows: list[Row] = [
            (
                teacher.name,
                scenario,
                teacher.loss is None,
                teacher.dollars_per_million_tokens,
                teacher.logit_flops(self.setting.architecture),
            )
            for teacher in teachers
        ]
        ways = TeacherWays(self.serving, teachers, scenario, self.question.flops_per_dollar)
        return self._decide(ways, rows)

    def _same_vocabulary(self, teachers: tuple[KnownTeacher, ...]) -> list[KnownTeacher]:
        vocab = self.setting.architecture.vocab
        usable = [teacher for teacher in teachers if teacher.vocab in (None, vocab)]
        other = [f"{teacher.name} ({teacher.vocab})" for teacher in teachers if teacher not in usable]
        if other:
            text = (
                f"left out for another vocabulary than the student's {vocab}: {', '.join(other)}; "
                "token-level distillation needs the same one"
            )
            if not usable:
                raise InputError(f"no teacher can be used: all {text}")
            self.warnings.append(text)
        return usable

    def _decide(self, ways: Ways, rows: list[Row]) -> list[Candidate]:
        """The candidates of the ways that can do what is asked."""
        params, budget = choose(
            lambda size, cost: ways.optima(size, cost).loss,
            ways.rows,
            self.sizes,
            self.question.budget,
            self.question.target_loss,
        )
        reached = np.isfinite(budget[:, 0])
        optima = ways.optima(params, np.where(reached[:, None], budget, math.exp(LN_LARGEST_BUDGET)))
        beside = {spent: self._beside(spent) for spent in set(budget[reached, 0].tolist())}
        candidates = []
        for k, (name, scenario, is_trained, price, forward_flops) in enumerate(rows):
            if not reached[k]:
                self.unreachable[name] = float(optima.loss[k, 0])
            elif math.isfinite(optima.loss[k, 0]):
                N_S, D_S, N_T, D_T, L_T, _ = (float(values[k, 0]) for values in optima)
                direct_params, direct_tokens = beside[float(budget[k, 0])]
                candidates.append(
                    Candidate(
                        name=name,
                        scenario=scenario,
                        student_params=N_S,
                        student_tokens=D_S,
                        teacher_params=N_T,
                        teacher_tokens=D_T,
                        teacher_loss=L_T,
                        teacher_is_trained=is_trained,
                        direct_params=direct_params,
                        direct_tokens=direct_tokens,
                        ranges=self._ranges(scenario) if not self.question.teachers else {},
                        dollars=None if price is None else price * D_S / 1e6,
                        forward_flops=forward_flops,
                    )
                )
            else:
                self.warnings.append(f"{name}: nothing within the constraints fits the budget")
        return candidates

    def _ranges(self, scenario: Scenario) -> dict[str, Interval]:
        """90 % of the decisions that would be optimal if a draw were the truth."""
        question, draws = self.question, self.calibration.draw_count
        free, towards = self.sizes[0] < self.sizes[1], question.target_loss is not None
        if not self.ranges or not draws or (free and towards):
            return {}
        every = slice(None, None, max(1, draws // NESTED_DRAWS) if free or towards else 1)
        drawn = replace(
            self._under(scenario).setting,
            supervised=self.calibration.sampled_supervised(),
            law=self.calibration.sampled_law(question.law),
        ).rows(every)
        ways = DrawnWays(Serving(drawn, question.lifetime_tokens), scenario, len(range(draws)[every]))
        params, budget = choose(
            lambda size, cost: ways.optima(size, cost).loss,
            ways.rows,
            self.sizes,
            question.budget,
            question.target_loss,
            QUICK_SIZES,
        )
        reached = np.isfinite(budget[:, 0])
        optima = ways.optima(params, np.where(reached[:, None], budget, math.exp(LN_LARGEST_BUDGET)))
        if not np.all(reached) or not np.all(np.isfinite(optima.loss)):
            return {}
        ranges = {name: interval(getattr(optima, name)) for name in optima._fields}
        return ranges | ({"flops": interval(budget)} if towards else {})

    def _explored(self, candidate: Candidate) -> Candidate:
        if self.question.tolerance is None:
            return candidate
        under = self._under(candidate.scenario)
        near = explore(under, candidate, self.question.budget or 0.0, self.question.tolerance)
        return replace(candidate, near=near)
