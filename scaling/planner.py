"""From a question and a calibration to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaling.calibration import Calibration
from scaling.compute import FORWARDS_PER_STEP
from scaling.laws import IdentifiableLaw, PublishedLaw
from scaling.optimum import Optima, Problems, Setting, direct, solve
from scaling.plans import FAR, Direct, Distillation, Plan
from scaling.question import Question
from scaling.scenarios import Scenario
from scaling.uncertainty import Decisions, Judge, Outcome, interval
from scaling.units import format_number

DISAGREEMENT = 0.01
"""nats/token; laws of one calibration that differ by more are reported."""


def plan(question: Question, calibration: Calibration) -> Plan:
    """The best distillation under each scenario, beside direct training at equal compute.

    Raises :class:`~scaling.errors.InputError` for questions that have no answer.
    """
    architecture, bounds = question.resolve(calibration)
    setting = Setting(
        supervised=calibration.supervised,
        law=calibration.law(question.law),
        architecture=architecture,
        bounds=bounds,
    )
    scenarios = question.scenarios
    problems = Problems.of(
        question.student_params,
        question.budget,
        [scenario.logits for scenario in scenarios],
        [scenario.pretraining for scenario in scenarios],
    )
    optima = solve(setting, problems)
    ranges = [_ranges(setting, calibration, question, scenario) for scenario in scenarios]
    return assemble(question, calibration, setting, scenarios, optima, ranges)


def assemble(
    question: Question,
    calibration: Calibration,
    setting: Setting,
    scenarios: Sequence[Scenario],
    optima: Optima,
    ranges: Sequence[dict[str, tuple[float, float]]],
) -> Plan:
    """The plan that consists of these distillations and the direct training of equal compute."""
    kind = question.law or calibration.default or ""
    tokens, _ = direct(setting, question.student_params, question.budget)
    feasible = [k for k in range(len(scenarios)) if math.isfinite(optima.loss[k])]
    optima = Optima(*(values[feasible] for values in optima))
    scenarios = [scenarios[k] for k in feasible]
    decisions = Decisions(
        *optima[:5],
        np.array([scenario.pretraining > 0 for scenario in scenarios]),
        np.full(len(feasible), question.student_params),
        np.full(len(feasible), float(tokens)),
    )
    judge = Judge(calibration, question.student_unique_tokens, question.teacher_unique_tokens)
    outcomes = {law: judge.outcome(decisions, law) for law in calibration.distillation}
    ways = tuple(
        _distillation(k, scenario, decisions, outcomes, kind, calibration, setting, ranges[feasible[k]])
        for k, scenario in enumerate(scenarios)
    )
    region = calibration.region
    alone = Direct(
        params=question.student_params,
        tokens=float(tokens),
        loss=judge.direct(question.student_params, float(tokens)),
        flops=float(setting.architecture.training_flops(question.student_params, tokens)),
        outside=region.outside(params=question.student_params, tokens=float(tokens)),
    )
    return Plan(
        calibration=calibration.name,
        law=kind,
        budget=question.budget,
        direct=alone,
        distillations=ways,
        assumptions=_assumptions(question, calibration, setting),
        warnings=_warnings(calibration, alone, ways),
    )


def _distillation(
    k: int,
    scenario: Scenario,
    of: Decisions,
    outcomes: dict[str, Outcome],
    kind: str,
    calibration: Calibration,
    setting: Setting,
    ranges: dict[str, tuple[float, float]],
) -> Distillation:
    F, supervised = setting.architecture.forward_flops, setting.supervised
    student, tokens, teacher, taught, L_T = (float(values[k]) for values in of[:5])
    outcome = outcomes[kind]
    probabilities = [p[k] for p in (each.probability() for each in outcomes.values()) if p is not None]
    Ls = float(supervised.loss(student, tokens))
    outside = calibration.region.outside(
        student_params=student,
        student_tokens=tokens,
        teacher_params=teacher,
        teacher_tokens=taught,
        teacher_loss=L_T,
        teacher_loss_ratio=L_T / Ls,
    )
    by_law = {law: float(each.loss[k]) for law, each in outcomes.items()}
    warnings = []
    if isinstance(calibration.law(kind), IdentifiableLaw | PublishedLaw) and (teacher < student or Ls < L_T):
        warnings.append(
            f"{scenario.name}: a teacher of {format_number(teacher)} parameters, loss {L_T:.3f}, for a "
            f"student that reaches {Ls:.3f} alone: the {kind} law knows no student better than its teacher"
        )
    if max(by_law.values()) - min(by_law.values()) > DISAGREEMENT:
        texts = ", ".join(f"{law} {loss:.3f}" for law, loss in by_law.items())
        warnings.append(f"{scenario.name}: the laws disagree on this plan's loss: {texts}")
    return Distillation(
        name=scenario.name,
        params=student,
        tokens=tokens,
        teacher_params=teacher,
        teacher_tokens=taught,
        teacher_loss=L_T,
        loss=outcome.estimate(k),
        student_flops=FORWARDS_PER_STEP * float(F(student)) * tokens,
        logits_flops=scenario.logits * float(F(teacher)) * tokens,
        teacher_flops=scenario.pretraining * FORWARDS_PER_STEP * float(F(teacher)) * taught,
        gain=outcome.gain(k),
        same_data_loss=Ls,
        probability=float(np.mean(probabilities)) if probabilities else None,
        by_law=by_law,
        ranges=ranges,
        outside=outside,
        warnings=tuple(warnings),
    )


def _ranges(
    setting: Setting, calibration: Calibration, question: Question, scenario: Scenario
) -> dict[str, tuple[float, float]]:
    """90 % of the optimal decisions over the draws."""
    if not calibration.draw_count:
        return {}
    drawn = replace(
        setting,
        supervised=calibration.sampled_supervised(),
        law=calibration.sampled_law(question.law),
    )
    budgets = np.full(calibration.draw_count, question.budget)
    optima = solve(
        drawn, Problems.of(question.student_params, budgets, scenario.logits, scenario.pretraining)
    )
    names = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss", "loss")
    return {name: interval(getattr(optima, name)) for name in names if np.all(np.isfinite(optima.loss))}


def _assumptions(question: Question, calibration: Calibration, setting: Setting) -> tuple[str, ...]:
    longest = setting.bounds.teacher_tokens[1]
    texts = [
        f"Losses are nats/token on held-out data, parameters exclude embeddings; FLOPs follow the "
        f"{setting.architecture.rule} rule with context {setting.architecture.context} and vocabulary "
        f"{setting.architecture.vocab}.",
        f"No teacher is trained on more than {format_number(longest)} tokens.",
    ]
    if calibration.draw_count:
        texts.append(
            f"Intervals are 90 % over {calibration.draw_count} draws of the coefficients and the residual "
            "spread of single runs; probabilities average the calibration's laws."
        )
    else:
        texts.append("The calibration has no draws: intervals show the residual spread at most.")
    if math.isfinite(min(question.student_unique_tokens, question.teacher_unique_tokens)):
        texts.append(
            "Repeated tokens are valued by the data-constrained law of Muennighoff et al. 2023 "
            "(R* = 15.4, fitted to supervised training on C4)."
        )
    return tuple(texts)


def _warnings(calibration: Calibration, alone: Direct, ways: Sequence[Distillation]) -> tuple[str, ...]:
    texts = list(calibration.provenance.warnings)
    far: dict[str, list[str]] = {}
    for name, outside in [("direct", alone.outside), *((way.name, way.outside) for way in ways)]:
        factors = [f"{variable} {factor:.3g}x" for variable, factor in outside.items() if factor > FAR]
        if factors:
            far.setdefault(", ".join(factors), []).append(name)
    for factors_text, names in far.items():
        texts.append(f"extrapolated beyond the fitted runs, {factors_text}: {', '.join(names)}")
    for way in ways:
        texts.extend(way.warnings)
    return tuple(texts)
