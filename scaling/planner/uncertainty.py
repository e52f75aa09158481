"""Uncertainty of decisions already taken, from a calibration's draws.

A decision is evaluated, not taken again, under every draw: coefficients are uncertain when one decides. To
that the spread of runs around the law is added, so an interval is for one run and a probability compares two.
Where several laws count, intervals and probabilities are those of one distribution, the mixture of the laws'
own by their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import SUPERVISED, Calibration
from scaling.planner.plan import Estimate
from scaling.repeated_data import repeated_tokens_value

Array = NDArray[np.float64]
COVERAGE = 0.9
UNLIMITED_TOKENS = 1e30
NOISE_SEED = 0

# Not scipy.special.ndtr: importing it takes twice as long as NumPy, and a third more for `distlaw plan`.
_normal_cdf = np.frompyfunc(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), 1, 1)


class Decisions(NamedTuple):
    """Distillations and the direct training they compete with; arrays of shape (K,)."""

    student_params: Array
    student_tokens: Array
    teacher_params: Array
    teacher_tokens: Array
    teacher_loss: Array
    teacher_is_trained: NDArray[np.bool_]
    """True if the teacher's loss follows from its size and tokens; otherwise it is known."""
    direct_params: Array
    direct_tokens: Array


class Predictive(NamedTuple):
    """Distribution of a number for one run under one law, nats/token."""

    value: float
    """Value under the point coefficients."""
    draws: Array | None
    """Values under the draws, (draws,)."""
    noise: float
    """Standard deviation of one run around the law."""

    def estimate(self) -> Estimate:
        """Return the value with the central interval; without one where nothing is uncertain."""
        if self.draws is None and self.noise == 0:
            return Estimate(self.value)
        return Estimate(self.value, *interval(self.sample()))

    def sample(self) -> Array:
        """Return about 1000 equally likely values: the draws, each blurred by normal noise."""
        spread = np.array([self.value]) if self.draws is None else self.draws
        blurred = np.repeat(spread, max(1, 1000 // len(spread)))
        return np.asarray(blurred + self.noise * _standard_normal(len(blurred)))


class Outcome(NamedTuple):
    """Losses under the point coefficients, shape (K,), and under the draws, (draws, K) or ``None``."""

    loss: Array
    direct: Array
    loss_draws: Array | None
    direct_draws: Array | None
    noise: Array
    """Spread of one distilled run around the law, nats/token, (K,)."""
    direct_noise: Array
    """Spread of one directly trained run, nats/token, (K,)."""

    def estimate(self, k: int) -> Estimate:
        """Return the loss of distillation ``k``, for one run."""
        return self.loss_distribution(k).estimate()

    def loss_distribution(self, k: int) -> Predictive:
        """Return the distribution of the loss of distillation ``k``, for one run."""
        draws = None if self.loss_draws is None else self.loss_draws[:, k]
        return Predictive(float(self.loss[k]), draws, float(self.noise[k]))

    def gain_distribution(self, k: int) -> Predictive:
        """Return the distribution of how much lower distilled run ``k`` ends, nats/token."""
        draws = None
        if self.loss_draws is not None and self.direct_draws is not None:
            draws = self.direct_draws[:, k] - self.loss_draws[:, k]
        noise = math.hypot(self.noise[k], self.direct_noise[k])
        return Predictive(float(self.direct[k] - self.loss[k]), draws, noise)

    def probability(self) -> Array | None:
        """Return the probability that the distilled run ends below the directly trained one, shape (K,)."""
        noise = np.hypot(self.noise, self.direct_noise)
        gains = (self.direct - self.loss)[None]
        if self.loss_draws is not None and self.direct_draws is not None:
            gains = self.direct_draws - self.loss_draws
        elif not noise.any():
            return None
        exact = noise == 0  # such a gain is certain under each draw
        above = _normal_cdf(gains / np.where(exact, 1.0, noise)).astype(np.float64)
        return np.asarray(np.where(exact, gains > 0, above).mean(axis=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationComparison:
    """K distillations beside direct training, under every law of a calibration."""

    kind: str
    """The law that decided."""
    outcomes: Mapping[str, Outcome]
    """Losses by law."""
    weights: Sequence[Mapping[str, float]]
    """Weights of the laws that count for each distillation, by law, summing to 1."""
    where: Sequence[Mapping[str, float]]
    """Each distillation in the variables of a region."""
    probabilities: Sequence[float | None]
    """Probability that distilling ends below direct training, by distillation."""
    same_data: Array
    """Loss of direct training on the same student tokens, shape (K,), nats/token."""
    floor: Array
    """Loss of direct training on unlimited data, shape (K,), nats/token."""
    refused: NDArray[np.bool_]
    """True where the teacher is so much better than those fitted that the law says nothing, shape (K,)."""

    def loss(self, k: int) -> Estimate:
        """Return the loss of distillation ``k``, nats/token."""
        return self._mixed(k, Outcome.loss_distribution)

    def gain(self, k: int) -> Estimate:
        """Return how much lower distillation ``k`` ends than direct training, nats/token."""
        return self._mixed(k, Outcome.gain_distribution)

    def _mixed(self, k: int, distribution: Callable[[Outcome, int], Predictive]) -> Estimate:
        value = distribution(self.outcomes[self.kind], k).value
        counting = [(weight, distribution(self.outcomes[law], k)) for law, weight in self.weights[k].items()]
        return mixed(value, counting)


@dataclass(frozen=True, slots=True)
class Judge:
    """Evaluation of decisions under a calibration."""

    calibration: Calibration
    student_unique_tokens: float = math.inf
    teacher_unique_tokens: float = math.inf

    def compare(self, decisions: Decisions, kind: str, asked: str | None = None) -> DistillationComparison:
        """Compare distillations with direct training.

        Args:
            decisions: The distillations, and the direct training beside each.
            kind: The law that decided.
            asked: The law that was asked for; intervals and probabilities then rest on no other.
        """
        laws, supervised = self.calibration.distillation, self.calibration.supervised
        seen = repeated_tokens_value(decisions.student_tokens, self.student_unique_tokens, self._repetition)
        same_data = supervised.loss(decisions.student_params, seen)
        where = [region_values(*values) for values in zip(*decisions[:5], same_data, strict=True)]
        outcomes = {law: self.outcome(decisions, law) for law in laws}
        chances = {law: each.probability() for law, each in outcomes.items()}
        weights = [{asked: 1.0} if asked else self.calibration.votes(**values) for values in where]
        return DistillationComparison(
            kind=kind,
            outcomes=outcomes,
            weights=weights,
            where=where,
            probabilities=[_probability(k, chances, each) for k, each in enumerate(weights)],
            same_data=same_data,
            floor=supervised.loss(decisions.student_params, UNLIMITED_TOKENS),
            refused=np.array(
                [self.calibration.refuses(kind, L_T) for L_T in decisions.teacher_loss], dtype=bool
            ),
        )

    @property
    def _repetition(self) -> float:
        return self.calibration.repetition_constant

    def outcome(self, decisions: Decisions, kind: str) -> Outcome:
        """Return the losses of the decisions under the law of this kind and the supervised law."""
        loss, direct = self._losses(decisions, kind, sampled=False)
        loss_draws = direct_draws = None
        if self.calibration.draw_count:
            loss_draws, direct_draws = self._losses(decisions, kind, sampled=True)
        seen = repeated_tokens_value(decisions.student_tokens, self.student_unique_tokens, self._repetition)
        alone = repeated_tokens_value(decisions.direct_tokens, self.student_unique_tokens, self._repetition)
        run_sd = self.calibration.run_sd
        noise = run_sd(kind, loss, decisions.student_params, seen, decisions.teacher_loss)
        direct_noise = run_sd(SUPERVISED, direct, decisions.direct_params, alone)
        return Outcome(loss, direct, loss_draws, direct_draws, noise, direct_noise)

    def supervised_loss(self, params: float, tokens: float) -> float:
        """Return the point loss of training directly, nats/token."""
        return float(
            self.calibration.supervised.loss(
                params, repeated_tokens_value(tokens, self.student_unique_tokens, self._repetition)
            )
        )

    def direct(self, params: float, tokens: float) -> Estimate:
        """Return the loss of training directly under the supervised law."""
        calibration = self.calibration
        seen = repeated_tokens_value(tokens, self.student_unique_tokens, self._repetition)
        draws = None
        if calibration.draw_count:
            draws = calibration.sampled_supervised().loss(params, seen)[:, 0]
        value = float(calibration.supervised.loss(params, seen))
        noise = calibration.run_sd(SUPERVISED, np.asarray(value), params, seen)
        return Predictive(value, draws, float(noise)).estimate()

    def _losses(self, of: Decisions, kind: str, sampled: bool) -> tuple[Array, Array]:
        calibration = self.calibration
        supervised = calibration.sampled_supervised() if sampled else calibration.supervised
        law = calibration.sampled_law(kind) if sampled else calibration.law(kind)
        taught = repeated_tokens_value(of.teacher_tokens, self.teacher_unique_tokens, self._repetition)
        with np.errstate(invalid="ignore"):
            trained = supervised.loss(of.teacher_params, taught)
        L_T = np.where(of.teacher_is_trained, trained, of.teacher_loss)
        seen = repeated_tokens_value(of.student_tokens, self.student_unique_tokens, self._repetition)
        alone = repeated_tokens_value(of.direct_tokens, self.student_unique_tokens, self._repetition)
        return law.loss(of.student_params, seen, L_T, supervised), supervised.loss(of.direct_params, alone)


def region_values(N_S: float, D_S: float, N_T: float, D_T: float, L_T: float, Ls: float) -> dict[str, float]:
    """Return a distillation in the variables of a region; ``Ls`` is the student's loss alone. Drops nan."""
    values = {
        "student_params": N_S,
        "student_tokens": D_S,
        "teacher_params": N_T,
        "teacher_tokens": D_T,
        "teacher_loss": L_T,
        "teacher_loss_ratio": L_T / Ls,
    }
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def mixed(value: float, distributions: Sequence[tuple[float, Predictive]]) -> Estimate:
    """Return a value with the central interval of a mixture, widened to hold the value.

    Args:
        value: The value of the law that decided, nats/token.
        distributions: Weight and distribution of every law that counts.
    """
    if len(distributions) == 1 and distributions[0][1].value == value:
        return distributions[0][1].estimate()
    samples = [each.sample() for _, each in distributions]
    shares = [
        np.full(len(each), weight / len(each))
        for each, (weight, _) in zip(samples, distributions, strict=True)
    ]
    low, high = weighted_interval(np.concatenate(samples), np.concatenate(shares))
    return Estimate(value, min(value, low), max(value, high))


def _probability(k: int, chances: Mapping[str, Array | None], weights: Mapping[str, float]) -> float | None:
    """Return the probability of distillation ``k``, averaged over the laws that count by their weights.

    ``chances`` are :meth:`Outcome.probability` by law. ``None`` without any uncertainty.
    """
    known = [(float(p[k]), weights[law]) for law, p in chances.items() if p is not None and law in weights]
    total = sum(weight for _, weight in known)
    return sum(p * weight for p, weight in known) / total if known else None


def interval(values: Array) -> tuple[float, float]:
    """Return the central interval of draws."""
    ordered = np.sort(values, axis=None)  # several times faster than np.quantile on so few values
    last = len(ordered) - 1
    ends = [last * (1 - COVERAGE) / 2, last * (1 + COVERAGE) / 2]
    low, high = np.interp(ends, np.arange(len(ordered)), ordered)
    return float(low), float(high)


def weighted_interval(values: Array, weights: Array) -> tuple[float, float]:
    """Return the central interval of values (n,) with weights (n,) that sum to 1."""
    order = np.argsort(values)
    ordered, share = values[order], weights[order]
    below = np.cumsum(share) - share / 2
    low, high = np.interp([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], below, ordered)
    return float(low), float(high)


@lru_cache(maxsize=32)
def _standard_normal(count: int) -> Array:
    """Return the quantiles of a standard normal at ``count`` equally likely places, in random order.

    Numbers drawn at random would give all intervals the error of one sample: 1000 of them spanned 3.07
    instead of 3.29 standard deviations.
    """
    normal = NormalDist()
    quantiles = [normal.inv_cdf((k + 0.5) / count) for k in range(count)]
    return np.random.default_rng(NOISE_SEED).permutation(np.array(quantiles))
