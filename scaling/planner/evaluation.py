"""Plans from decisions: losses with intervals, verdicts, costs, distances from the fitted region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scaling.calibration.calibration import Calibration
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import accounting
from scaling.costs.scenarios import Scenario, cost
from scaling.laws import EffectiveTokensLaw
from scaling.planner.plan import Direct, Distillation, Interval, NearOptimal, Plan
from scaling.planner.question import Question
from scaling.planner.uncertainty import Decisions, DistillationComparison, Judge
from scaling.planner.warnings import plan_warnings, weak_teacher
from scaling.repeated_data import REPETITION_CONSTANT
from scaling.units import format_number, format_power


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A way to distil that has been decided on, and the direct training it competes with."""

    name: str
    scenario: Scenario
    student_params: float
    student_tokens: float
    teacher_params: float
    teacher_tokens: float
    """nan where unknown."""
    teacher_loss: float
    teacher_is_trained: bool
    """True if its loss follows from its size and tokens, and is as uncertain as they make it."""
    direct_params: float
    direct_tokens: float
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    dollars: float | None = None
    forward_flops: float | None = None
    """FLOPs of the teacher's forward pass over one token, where they do not follow from its size."""
    near: NearOptimal | None = None


@dataclass(frozen=True, slots=True)
class PlanBuilder:
    """Builder of the plan of one question under one calibration."""

    question: Question
    calibration: Calibration

    @property
    def architecture(self) -> Architecture:
        """Architecture that FLOPs are counted with."""
        return self.question.counting(self.calibration)

    def plan(
        self,
        directs: Sequence[tuple[float, float]],
        candidates: Sequence[Candidate],
        unreachable: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
    ) -> Plan:
        """Return the plan; ``directs`` are parameters and tokens of the students trained directly."""
        question, calibration = self.question, self.calibration
        kind = (question.law or calibration.default) if calibration.distillation else None
        alone = tuple(self._direct(params, tokens) for params, tokens in directs)
        ways = self._ways(candidates, kind) if kind and candidates else ()
        return Plan(
            calibration=calibration.name,
            law=kind,
            budget=question.budget,
            target_loss=question.target_loss,
            asked=question.describe() + size_text(calibration),
            question=question.to_dict(),
            direct=alone,
            distillations=ways,
            unreachable=dict(unreachable or {}),
            student_unique_tokens=question.student_unique_tokens
            if math.isfinite(question.student_unique_tokens)
            else None,
            assumptions=self._assumptions([each.scenario for each in candidates]),
            warnings=(
                *calibration.provenance.warnings,
                *warnings,
                *plan_warnings(
                    calibration,
                    alone,
                    ways,
                    question.student_unique_tokens,
                    question.teacher_unique_tokens,
                ),
            ),
        )

    @property
    def _judge(self) -> Judge:
        return Judge(
            self.calibration, self.question.student_unique_tokens, self.question.teacher_unique_tokens
        )

    def _direct(self, params: float, tokens: float) -> Direct:
        F = float(self.architecture.forward_flops(params))
        return Direct(
            params=params,
            tokens=tokens,
            loss=self._judge.direct(params, tokens),
            training_flops=float(self.architecture.training_flops(params, tokens)),
            serving_flops=F * self.question.lifetime_tokens,
            outside=self.calibration.region.outside({"params": params, "tokens": tokens}),
        )

    def _ways(self, candidates: Sequence[Candidate], kind: str) -> tuple[Distillation, ...]:
        names = Decisions._fields
        decisions = Decisions(*(np.array([getattr(c, name) for c in candidates]) for name in names))
        found = self._judge.compare(decisions, kind, self.question.law)
        pairs = {(each.direct_params, each.direct_tokens) for each in candidates}
        beside = {pair: self._direct(*pair) for pair in pairs}
        ways = (
            self._way(k, each, found, beside[each.direct_params, each.direct_tokens])
            for k, each in enumerate(candidates)
        )
        return tuple(way if way.answered else replace(way, probability=None) for way in ways)

    def _way(self, k: int, of: Candidate, found: DistillationComparison, beside: Direct) -> Distillation:
        architecture, where = self.architecture, found.where[k]
        F_S, F_T = (float(architecture.forward_flops(N)) for N in (of.student_params, of.teacher_params))
        F_T = F_T if of.forward_flops is None else of.forward_flops
        spent = cost(of.scenario, F_S, of.student_tokens, F_T, of.teacher_tokens)
        Ls = float(found.same_data[k])
        measured = bool(self.question.teachers) and not of.teacher_is_trained
        return Distillation(
            name=of.name,
            params=of.student_params,
            tokens=of.student_tokens,
            teacher_params=of.teacher_params,
            teacher_tokens=where.get("teacher_tokens"),
            teacher_loss=of.teacher_loss,
            loss=found.loss(k),
            student_flops=float(spent.student),
            logits_flops=float(spent.logits)
            if of.dollars is None
            else of.dollars * self.question.flops_per_dollar,
            teacher_flops=float(spent.teacher),
            serving_flops=F_S * self.question.lifetime_tokens,
            direct=beside,
            gain=found.gain(k),
            same_data_loss=Ls,
            probability=found.probabilities[k],
            by_law={law: float(each.loss[k]) for law, each in found.outcomes.items()},
            ranges=of.ranges,
            outside=self.calibration.region.outside(where, teacher_predicted=not measured),
            dollars=of.dollars,
            near=of.near,
            refused=bool(found.refused[k]),
            floor=float(found.floor[k]),
            warnings=self._weak_teacher(of, found.kind, Ls),
        )

    def _weak_teacher(self, of: Candidate, kind: str, Ls: float) -> tuple[str, ...]:
        if of.teacher_params >= of.student_params and of.teacher_loss <= Ls:
            return ()
        if isinstance(self.calibration.law(kind), EffectiveTokensLaw):
            return ()
        reason = (
            "a teacher weaker than the student (fewer parameters, or a loss above the "
            f"{Ls:.3f} it reaches alone)"
        )
        return (weak_teacher(reason, kind),)

    def _teachers(self, scenarios: Sequence[Scenario]) -> list[str]:
        """Return the bounds within which the best teacher was sought, in sentences."""
        question, texts = self.question, []
        kept = [each for each in scenarios if question.keeps_to_runs(each)]
        if kept and self.calibration.region.teachers():
            bounds = question.bounds(self.calibration, kept[0])
            smallest, largest = (format_number(float(side)) for side in bounds.teacher_params)
            texts.append(
                f"A teacher that exists is chosen within the fitted runs ({smallest} to {largest} "
                f"parameters, up to {format_number(float(bounds.teacher_tokens[1]))} tokens); a constraint "
                "or extrapolate lets it leave them."
            )
        if len(kept) < len(scenarios):
            longest = float(question.bounds(self.calibration).teacher_tokens[1])
            texts.append(f"No teacher is trained on more than {format_number(longest)} tokens.")
        return texts

    def _assumptions(self, scenarios: Sequence[Scenario]) -> tuple[str, ...]:
        question = self.question
        counted = accounting(self.architecture, self.calibration.architecture)
        texts = [
            "Losses are held-out nats/token; parameters exclude embeddings; training costs three forward "
            f"passes; {counted}."
        ]
        texts += [] if question.teachers else self._teachers(scenarios)
        if self.calibration.draw_count:
            texts.append(
                f"Intervals are 90 % for one run: {self.calibration.draw_count} draws of the coefficients "
                f"and {_spread_text(self.calibration)}. They and the probabilities are those of the mixture "
                "of the laws that count there, by their weights, unless a law is named."
            )
            texts += _weights_text(self.calibration)
        else:
            texts.append("The calibration has no draws: intervals show the residual spread at most.")
        if question.flops_per_dollar:
            texts.append(
                "A price of logits counts as the FLOPs that the same money buys: "
                f"{format_power(question.flops_per_dollar)} a dollar."
            )
        if math.isfinite(min(question.student_unique_tokens, question.teacher_unique_tokens)):
            texts.append(
                "Repeated tokens are worth what the data-constrained law of Muennighoff et al. 2023 gives "
                f"({_repetition_text(self.calibration)})."
            )
        return tuple(texts)


def _spread_text(calibration: Calibration) -> str:
    """Name the errors that an interval holds beside the draws."""
    if calibration.misfit:
        return "errors on runs left out of refits, which grow beyond the fitted runs"
    return (
        "the residual spread (errors were never measured on runs left out: too narrow beyond the fitted runs)"
    )


def size_text(calibration: Calibration) -> str:
    """Return what sizes are, where the fitted runs are mixtures of experts; empty for dense models."""
    share = calibration.architecture.active_share
    texts = {
        "active": "; sizes are active parameters of mixtures of experts",
        "total": f"; sizes are total parameters of mixtures of experts, of which {100 * share:.3g} % are "
        "active and cost FLOPs",
    }
    return texts.get(calibration.size, "")


def _weights_text(calibration: Calibration) -> list[str]:
    """Return the weights of the laws, where held-out runs gave some, in a sentence."""
    weights = calibration.law_weights
    if not weights:
        return []
    ordered = sorted(weights, key=lambda law: -weights[law])
    shown = ", ".join(f"{law} {weights[law]:.2f}" for law in ordered if weights[law] > 0)
    silent = [law for law in ordered if weights[law] == 0]
    said = f"Laws count by how well they predict runs left out of the fit: {shown}"
    return [f"{said}; {', '.join(silent)} without a say where another holds." if silent else f"{said}."]


def _repetition_text(calibration: Calibration) -> str:
    """Return the constant of repeated tokens and where it comes from."""
    fitted = calibration.repetition
    if fitted is None:
        return f"R* = {REPETITION_CONSTANT:.1f}, fitted to supervised training on C4"
    low, high = fitted.tokens_interval
    return f"R* = {fitted.tokens:.1f} [{low:.1f}, {high:.1f}], fitted to {fitted.runs} runs that repeat"
