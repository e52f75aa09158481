"""Next runs for a question: V-optimal picks from candidates, until the expected regret is small."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.checks.heldout.sibling_choice import check_same_tokens
from fits.design.belief import Belief, believe
from fits.design.candidates import Candidates
from fits.design.points import Points
from fits.design.proposal import DecidedNow, Proposal, ProposedRun
from fits.design.regret import (
    DRAWS,
    DecisionOptions,
    Regret,
    expected_regret,
    regret_once_measured,
)
from fits.design.v_optimal import Pick, greedy, updated
from fits.estimation.laws.parametrization import Prior
from fits.estimation.laws.sibling import FARTHEST, Sibling
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw
from scaling.units import format_number, format_power

REGRET = 0.01
"""nats/token; an expected regret below it is not worth another run. It was 5 to 10 times the true one in
replays."""
FEWEST = 4
"""Runs without which no advice to stop is given: priors alone say nothing of whether the law holds."""
FIRST_ROUNDS = 8
"""Runs below which at most ``FIRST_SLOTS`` are worth training at once."""
FIRST_SLOTS = 4
FEWEST_DISTILLED = 0.2
"""Share of distillations among eight runs or more below which a proposal warns."""
FAR = 100.0
"""Factor of compute between the dearest candidate and a question above which a proposal says so."""
CONTRADICTION = 0.05
"""Noise of ln loss above which the runs contradict each other or the law; from twice that on there is no
advice to stop, as the regret takes the law for true."""

NO_GAIN = 1e-6
"""Share of the variance in question below which a run says nothing about it."""
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def next_runs(
    table: pd.DataFrame | None,
    candidates: Candidates,
    decisions: DecisionOptions,
    *,
    spend: float = np.inf,
    slots: int = 8,
    regret: float = REGRET,
    sibling: Sibling | None = None,
    given: AnySupervisedLaw | None = None,
    paid: Mask | None = None,
    running: Collection[str] = (),
    failed: Collection[str] = (),
    priors: Mapping[str, Prior] | None = None,
    sigma: float | None = None,
    lowest_loss: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Proposal:
    """Propose the runs that decide a question at the least cost.

    Args:
        table: Validated runs so far; None for none.
        candidates: Runs that could be trained.
        decisions: What is asked.
        spend: FLOPs that the proposed runs may cost together.
        slots: Number of runs at most.
        regret: Expected regret, nats/token, at which to stop.
        sibling: The law of another corpus, in place of the weak priors.
        given: A supervised law that is known, in place of one that runs determine.
        paid: Steps that are done, (s,); by default those of candidates in the table, by their ids.
        running: Ids of candidates that are being trained elsewhere; they are not proposed, and counted as
            measured.
        failed: Ids of candidates that cannot be trained.
        priors: As :func:`fits.design.belief.believe` takes them.
        sigma: Noise of ln loss; estimated from the runs if not given.
        lowest_loss: Loss that the weak prior of E refers to, nats/token.
        draws: Draws of the laws for the regret.
        seed: Seed of the draws.

    Returns:
        The runs in the order of their worth, and the decisions as they stand.

    Raises:
        InputError: for a spend that pays for no candidate, options that no candidate says anything about, or
            a sibling of another vocabulary than the table's.
    """
    if sibling is not None and table is not None:
        check_same_tokens(table, sibling)
    paid = steps_done(candidates, table) if paid is None else paid
    candidates = _measured_teachers(candidates, table)
    sibling, notes = sibling_within_reach(sibling, decisions)
    belief = believe(
        table, Points.joined([candidates.points, decisions.options]), sibling=sibling,
        given=given, priors=priors, sigma=sigma, lowest_loss=lowest_loss,
    )  # fmt: skip
    now = expected_regret(belief, decisions, draws=draws, seed=seed)
    elsewhere, blocked = (_among(candidates, ids) for ids in (running, failed))
    design = _Design(belief, candidates, decisions, paid, elsewhere & ~blocked, blocked, draws, seed)
    stop = now.mean <= regret and belief.rows >= FEWEST and belief.sigma < 2 * CONTRADICTION
    runs = [] if stop else design.propose(spend, slots, regret)
    return Proposal(
        runs=tuple(runs),
        decisions=_decided(belief, decisions, now),
        regret=now.mean,
        regret_after=runs[-1].regret_after if runs else now.mean,
        threshold=regret,
        stop=stop,
        measured=belief.rows,
        sigma=belief.sigma,
        prior=sibling.name if sibling else "weak",
        notes=(*notes, *design.remarks(len(runs))),
    )


@dataclass(frozen=True, slots=True)
class _Design:
    """Everything that picks follow from."""

    belief: Belief
    candidates: Candidates
    decisions: DecisionOptions
    paid: Mask
    elsewhere: Mask
    """True for runs that are being trained elsewhere, (n,)."""
    blocked: Mask
    """True for runs that failed, (n,)."""
    draws: int
    seed: int

    def propose(self, spend: float, slots: int, regret: float) -> list[ProposedRun]:
        """Return the picks, each with what it tells; none follows once the expected regret is small."""
        steps, covariance = self.with_running()
        belief, candidates = self.belief, self.candidates
        picks = greedy(
            covariance, belief.gradient(self.decisions.options), belief.gradient(candidates.points),
            candidates, belief.sigma, paid=steps, skipped=self.elsewhere | self.blocked, spend=spend,
        )  # fmt: skip
        found: list[ProposedRun] = []
        for pick in picks:
            if pick.gain <= NO_GAIN * pick.variance and not found:
                raise InputError(
                    f"no candidate says anything about the question: the best lowers the variance of its "
                    f"losses by a share of {pick.gain / pick.variance:.1g}; give candidates nearer to it"
                )
            after = regret_once_measured(belief, self.decisions, pick.covariance, self.draws, self.seed).mean
            found.append(self.described(pick, covariance, after))
            covariance = pick.covariance
            enough = after <= regret and belief.rows + len(found) >= FEWEST
            if enough or len(found) == slots:
                return found
        if not found:
            self.refuse_spend(steps, spend)
        return found

    def with_running(self) -> tuple[Mask, Array]:
        """Return steps and covariance as if the runs that are trained elsewhere were measured."""
        steps, covariance = self.paid.copy(), self.belief.covariance
        gradients, variance = (
            self.belief.gradient(self.candidates.points),
            self.candidates.variance(self.belief.sigma),
        )
        for run in np.flatnonzero(self.elsewhere & ~self.candidates.done(self.paid)):
            steps[self.candidates.steps_of(int(run))] = True
            covariance = updated(covariance, gradients[run], float(variance[run]))
        return steps, covariance

    def described(self, pick: Pick, before: Array, after: float) -> ProposedRun:
        """Return a pick with what it tells."""
        points, i = self.candidates.points, pick.run
        teacher_loss = points.L_T[i]
        share = 1.0 - np.diag(pick.covariance) / np.diag(before)
        coordinate = int(np.argmax(share))
        return ProposedRun(
            id=self.candidates.ids[i],
            kind="distillation" if points.distilled[i] else "supervised",
            params=float(points.N[i]),
            tokens=float(points.D[i]),
            seed=int(self.candidates.seed[i]),
            teacher_params=_number(points.N_T[i]),
            teacher_tokens=_number(points.D_T[i]),
            teacher_loss=_number(teacher_loss),
            projected_sd=float(self.candidates.extra_sd[i]),
            flops=pick.flops,
            with_it=tuple(self.candidates.ids[each] for each in pick.with_it),
            sd_before=float(np.sqrt(pick.variance)),
            sd_after=float(np.sqrt(max(self.mean_variance(pick.covariance), 0.0))),
            regret_after=after,
            coordinate=self.belief.model.names[coordinate].removeprefix("supervised "),
            coordinate_share=float(share[coordinate]),
            option=self.decisions.labels[int(np.argmax(pick.by_point))],
        )

    def mean_variance(self, covariance: Array) -> float:
        """Return the mean variance of ln loss at the points in question."""
        gradients = self.belief.gradient(self.decisions.options)
        return float(np.mean(np.einsum("tp,pq,tq->t", gradients, covariance, gradients)))

    def refuse_spend(self, steps: Mask, spend: float) -> None:
        """Refuse a spend that buys nothing, where something is left to buy."""
        there = self.candidates.done(steps)
        left = ~there & ~self.elsewhere & ~self.blocked & ~self.candidates.superseded(there)
        if left.any():
            cheapest = float(self.candidates.cost(steps)[left].min())
            raise InputError(
                f"spend: {format_power(spend)} FLOPs buy none of the {int(left.sum())} candidates left; the "
                f"cheapest costs {format_power(cheapest)}"
            )

    def remarks(self, proposed: int) -> list[str]:
        """Return notes on what the reader should know about the runs and the candidates."""
        belief, notes = self.belief, []
        running = int((self.elsewhere & ~self.candidates.done(self.paid)).sum())
        if running:
            notes.append(f"{running} candidates are being trained elsewhere: they are not proposed again")
        if proposed > FIRST_SLOTS and belief.rows < FIRST_ROUNDS:
            notes.append(
                f"more than {FIRST_SLOTS} runs at once, chosen from {belief.rows}, cost about 1.5 times the "
                "FLOPs of one after the other; fewer rounds are what they buy"
            )
        if belief.sigma > CONTRADICTION:
            notes.append(
                f"! the runs differ from the law by {100 * belief.residual:.1f} % rms: they contradict each "
                "other, or it; check that all were trained and tuned alike (distlaw check)"
            )
        notes += self.distillation_notes()
        if not proposed:
            notes += self.far_from_the_runs()
        notes += [*distance_notes(self.decisions, self.candidates), *self.decisions.notes]
        return notes

    def far_from_the_runs(self) -> list[str]:
        """Return a warning if the question, which is to be decided now, lies far beyond all runs."""
        rows = self.belief.model.rows
        far = _compute(self.decisions.options) / float(np.max(6.0 * rows.N * rows.D)) if len(rows) else 0.0
        if far < FAR:
            return []
        return [
            f"! the question lies {format_number(far)} times beyond the dearest run that is known by 6 N D: "
            "the regret takes the law for true that far"
        ]

    def distillation_notes(self) -> list[str]:
        """Return a warning if the runs hardly show what distillation does, and candidates could."""
        rows, points = self.belief.model.rows, self.candidates.points
        asked = self.decisions.options.distilled.any() and points.distilled.any()
        if not asked or len(rows) < FIRST_ROUNDS or rows.n_distillations >= FEWEST_DISTILLED * len(rows):
            return []
        return [
            f"! {rows.n_distillations} of {len(rows)} runs are distillations, so that k, q and eps rest on "
            "their priors; in replays half of the runs were distillations"
        ]


def distance_notes(decisions: DecisionOptions, candidates: Candidates) -> list[str]:
    """Return a note if the question lies far beyond all candidates."""
    far = _compute(decisions.options) / _compute(candidates.points)
    if far <= FAR:
        return []
    return [
        f"the question lies {format_number(far)} times beyond the dearest candidate by 6 N D: the "
        "regret takes the law for true that far"
    ]


def steps_done(candidates: Candidates, table: pd.DataFrame | None) -> Mask:
    """Return which steps are done, (s,): those that the candidates of a table need, by their ids."""
    done = np.zeros(len(candidates.step_flops), dtype=bool)
    for run in _runs_of(candidates, table):
        done[candidates.steps_of(run)] = True
    return done


def _among(candidates: Candidates, ids: Collection[str]) -> Mask:
    """Return which candidates have one of these ids, (n,)."""
    return np.isin(np.array(candidates.ids), np.array(sorted(ids), dtype=str))


def _runs_of(candidates: Candidates, table: pd.DataFrame | None) -> dict[int, float]:
    """Return the losses of candidates that a table holds, by index."""
    if table is None or "run" not in table:
        return {}
    used = table[table["excluded"] == ""] if "excluded" in table else table
    losses = dict(zip(used["run"].astype(str), used["loss"], strict=True))
    return {i: float(losses[each]) for i, each in enumerate(candidates.ids) if each in losses}


def _measured_teachers(candidates: Candidates, table: pd.DataFrame | None) -> Candidates:
    known = _runs_of(candidates, table)
    return candidates.with_teachers_measured(
        {i: loss for i, loss in known.items() if i in candidates.teacher}
    )


def sibling_within_reach(
    sibling: Sibling | None, decisions: DecisionOptions
) -> tuple[Sibling | None, list[str]]:
    """Return the sibling if its law reaches the question, and a note where it does not cover it."""
    if sibling is None:
        return None, []
    asked = _compute(decisions.options)
    times = asked / sibling.largest_compute
    if (covers := sibling.covers(asked)) == "yes":
        return sibling, []
    if covers == "beyond":
        return sibling, [f"the question lies {times:.1f} times beyond the largest run of {sibling.name}"]
    return None, [
        f"the law of {sibling.name} is not used: the question lies {format_number(times)} times beyond its "
        f"largest run, and it says nothing beyond {FARTHEST:g} times"
    ]


def _decided(belief: Belief, decisions: DecisionOptions, now: Regret) -> tuple[DecidedNow, ...]:
    losses = belief.losses(decisions.options)
    return tuple(
        DecidedNow(
            question=name, choice=decisions.labels[pick], loss=float(losses[pick]), regret=float(lost),
            probability=float(sure),
        )
        for name, pick, lost, sure in zip(
            decisions.names, decisions.chosen(losses), now.each, now.sure, strict=True
        )
    )  # fmt: skip


def _compute(points: Points) -> float:
    """Return the largest 6 N D of points, FLOPs."""
    return float(np.max(6.0 * points.N * points.D))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
