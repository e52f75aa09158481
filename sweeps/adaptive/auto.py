"""Loop of an adaptive sweep: propose, record, train, refit, until the decision is good enough.

Every round is in the store before its runs start (:mod:`sweeps.adaptive.rounds`), and what is done is in the
store anyway, so an interrupted loop goes on where it was, with the same decisions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fits.design.next_runs import FIRST_SLOTS, REGRET
from fits.design.proposal import Proposal
from fits.estimation.laws.sibling import Sibling
from scaling.errors import InputError
from scaling.planner.question import Question
from sweeps.adaptive.candidates import closure
from sweeps.adaptive.next_runs import propose
from sweeps.adaptive.rounds import Round, read_rounds, record_round
from sweeps.dag.expand import Dag
from sweeps.dag.resolved import Resolved
from sweeps.execute.run import Where, run_sweep
from sweeps.execute.state import State
from sweeps.store.store import Store

VAGUE_ROUNDS = 2
"""Rounds of at most four runs: the law is too vague for more at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of an adaptive sweep."""

    spend: float = float("inf")
    """FLOPs of all rounds: as they were expected to cost, and of runs that are done as they did."""
    regret: float = REGRET
    """Expected regret at which to stop, nats/token."""
    rounds: int = 50
    hours: float = float("inf")
    """Hours of this driver after which no round begins."""
    slots: int = 8
    """Runs of a round, from the third on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveSweep:
    """An adaptive sweep: a spec whose runs are the candidates, a store, questions and limits."""

    resolved: Resolved
    dag: Dag
    store: Store
    questions: Sequence[Question]
    limits: Limits = field(default_factory=Limits)
    sibling: Sibling | None = None

    def run(
        self,
        where: Where,
        watch: Callable[[State], None] = lambda _: None,
        told: Callable[[Round], None] = lambda _: None,
        begun: float | None = None,
    ) -> list[Round]:
        """Run rounds until a limit, and return all rounds of the store.

        Args:
            where: Place where steps run.
            watch: Called about twice a second with where a round stands.
            told: Called with each round when it is decided or taken up.
            begun: When this driver began, by ``time.monotonic()``; now if not given.

        Returns:
            The rounds, the last with the reason to stop.

        Raises:
            InputError: for a spend that buys nothing, or a round whose runs all failed.
        """
        begun = time.monotonic() if begun is None else begun
        self.store.create()
        trained = 0
        while True:
            rounds = read_rounds(self.store)
            if rounds and not rounds[-1].stop and rounds[-1].number > trained:
                trained = rounds[-1].number  # this driver's, an interrupted one's, or another's
                self._train(rounds[-1], where, watch, told, begun)
                continue
            number = rounds[-1].number + 1 if rounds else 1
            proposal, reason = self._decide(rounds, begun)
            decided = Round.of(number, proposal, self.questions, reason)
            if reason and rounds and decided.repeats(rounds[-1]):
                told(rounds[-1])
                return rounds
            decided = record_round(self.store, decided)
            if decided.stop:
                told(decided)
                return [*rounds, decided]

    def _decide(self, rounds: Sequence[Round], begun: float) -> tuple[Proposal, str]:
        """Return the proposal of a round, and the reason to stop, if any."""
        trained = sum(bool(each.runs) for each in rounds)
        left = self.limits.spend - self._spent(rounds)
        failed = self._failed()
        slots = min(self.limits.slots, FIRST_SLOTS) if trained < VAGUE_ROUNDS else self.limits.slots
        proposal = self._proposal(failed, left, slots, spent=trained > 0)
        return proposal, self._reason(proposal, trained, left, begun)

    def _spent(self, rounds: Sequence[Round]) -> float:
        """Return the FLOPs of rounds: what was planned, corrected by what the runs that are done report.

        Commands declare their FLOPs, and methods count the tokens that students wrote.
        """
        planned = sum(each.flops for each in rounds)
        part = closure(self.dag, {run for each in rounds for run in each.runs})
        steps = {step.id: step for step in part.steps}
        done = self.store.results(steps)
        return planned + sum(
            float(result["flops"]["total"]) - steps[run].flops for run, result in done.items()
        )

    def _proposal(self, failed: Sequence[str], left: float, slots: int, *, spent: bool) -> Proposal:
        options: dict[str, Any] = {"slots": slots, "regret": self.limits.regret, "sibling": self.sibling}
        options["failed"] = failed
        try:
            return propose(self.dag, self.store, self.questions, spend=left, **options)
        except InputError:
            if not spent:  # nothing was trained yet: the spend buys nothing at all
                raise
            return propose(self.dag, self.store, self.questions, **options)

    def _reason(self, proposal: Proposal, trained: int, left: float, begun: float) -> str:
        """Return the reason to stop; empty to go on."""
        hours = (time.monotonic() - begun) / 3600
        if proposal.stop:
            return (
                f"expected regret {proposal.regret:.4f} nats/token, at most {self.limits.regret:g} asked for"
            )
        if not proposal.runs:
            return "no candidate is left"
        if trained >= self.limits.rounds:
            return f"{trained} rounds were run, of {self.limits.rounds}"
        if proposal.runs[0].flops > left * (1 + 1e-12):
            cost = proposal.runs[0].flops
            return f"the next run costs {cost:.3g} FLOPs, and {max(left, 0):.3g} are left to spend"
        if hours >= self.limits.hours:
            return f"this driver has run {hours:.2f} hours, of {self.limits.hours:g}"
        return ""

    def _train(
        self, decided: Round, where: Where, watch: Callable[[State], None], told: Callable[[Round], None],
        begun: float,
    ) -> None:  # fmt: skip
        """Train the runs of a round and what they need; what is done stays.

        Raises:
            InputError: if none of its runs could be trained.
        """
        unknown = set(decided.runs) - {step.id for step in self.dag.steps}
        if unknown:
            raise InputError(
                f"{self.store.root}: round {decided.number} trains {len(unknown)} runs that the spec does "
                "not have: give the spec that it was decided with, or another store"
            )
        part = closure(self.dag, set(decided.runs))
        if not set(decided.runs) - set(self.store.results(decided.runs)) - set(self._failed()):
            return
        told(decided)
        state = run_sweep(self.resolved, part, self.store, where, watch, begun)
        if state.halted or not set(decided.runs) & state.done:
            raise InputError(
                f"round {decided.number}: {'; '.join(state.problems()) or 'no run of it was trained'}"
            )

    def _failed(self) -> list[str]:
        """Return the ids of runs that were given up, or cannot run as a step that they need was."""
        given_up = {
            step.id
            for step in self.dag.steps
            if self.store.read(step.id, "failure.json") is not None and self.store.result(step.id) is None
        }
        blocked = set(given_up)
        for step in self.dag.steps:
            if any(need.id in blocked for need in step.needs):
                blocked.add(step.id)
        return sorted(blocked)
