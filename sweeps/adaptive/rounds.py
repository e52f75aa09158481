"""Rounds of an adaptive sweep, recorded in its store before their runs start.

    store/rounds/0001.json      what was believed and decided, and the runs that were chosen

A round is created once: of two drivers, the second takes the first one's. So a sweep that is interrupted, or
driven from two machines, goes on with the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fits.design.proposal import Proposal
from scaling.errors import InputError
from scaling.planner.question import Question
from sweeps.store.store import Store

FOLDER = "rounds"
ROUND_SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Decision on what to train next, or to stop."""

    number: int
    runs: tuple[str, ...]
    """Ids of the steps to train; empty where the sweep stops."""
    flops: float
    """FLOPs that they were expected to cost."""
    regret: float
    """Expected regret before them, nats/token."""
    regret_after: float
    stop: str
    """Reason to stop; empty while runs follow."""
    decided: str
    """Time of the decision, UTC."""
    believed: dict[str, Any]
    """Number of runs known, noise, prior, decisions and notes, and the runs with what each tells."""
    asked: tuple[str, ...]
    """Questions in words."""

    @classmethod
    def of(cls, number: int, proposal: Proposal, questions: Sequence[Question], stop: str) -> Round:
        """Return the round of a proposal."""
        return cls(
            number=number,
            runs=() if stop else tuple(run.id for run in proposal.runs),
            flops=0.0 if stop else proposal.flops,
            regret=proposal.regret,
            regret_after=proposal.regret_after,
            stop=stop,
            decided=datetime.now(UTC).isoformat(timespec="seconds"),
            believed=proposal.to_dict(),
            asked=tuple(question.describe() for question in questions),
        )

    def repeats(self, other: Round) -> bool:
        """Return whether both end alike: for one reason, with one answer, from as many runs and one prior."""
        return self._ending == other._ending

    @property
    def _ending(self) -> tuple[Any, ...]:
        believed = self.believed
        answers = [(each["question"], each["choice"]) for each in believed.get("decisions", ())]
        return self.stop, believed.get("prior"), believed.get("measured"), answers

    def __str__(self) -> str:
        now = f"round {self.number}: expected regret {self.regret:.4f} nats/token"
        if self.stop:
            return f"{now}; stop: {self.stop}"
        return f"{now}; training {len(self.runs)} runs, {self.flops:.3g} FLOPs"


def read_rounds(store: Store) -> list[Round]:
    """Return the rounds of a store, in order.

    Raises:
        InputError: for a record that is damaged, or of another version.
    """
    found = []
    for name in store.names(FOLDER):
        if not (name.endswith(".json") and name[:-5].isdigit()):
            continue
        content = store.read(FOLDER, name)
        if content is None:
            continue
        if content.pop("schema", None) != ROUND_SCHEMA:
            raise InputError(f"{store.root}/{FOLDER}/{name}: a round of another version of distlaw")
        try:
            lists = {key: tuple(content[key]) for key in ("runs", "asked")}
            found.append(Round(**{**content, **lists}))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{store.root}/{FOLDER}/{name}: damaged ({error}); delete it to decide the round again"
            ) from None
    return sorted(found, key=lambda each: each.number)


def record_round(store: Store, decided: Round) -> Round:
    """Record a round, and return it; the one of another driver that was first, if there is one."""
    place = (FOLDER, f"{decided.number:04d}.json")
    if store.put_new({"schema": ROUND_SCHEMA, **asdict(decided)}, *place):
        return decided
    return next(each for each in read_rounds(store) if each.number == decided.number)
