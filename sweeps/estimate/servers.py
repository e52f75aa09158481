"""Time of servers that answer for teachers: tokens that they score, at a stated or a measured speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scaling.units import format_number
from sweeps.dag.expand import Dag
from sweeps.dag.step import Step
from sweeps.estimate.bill import HOUR
from sweeps.estimate.cost import Cost
from sweeps.store.store import Store


@dataclass(frozen=True, slots=True)
class ServerWork:
    """Work of a server for one step."""

    name: str
    """Name of the model there."""
    tokens: float
    """Tokens that it scores."""
    requests: float
    """Requests, of one context each."""
    tokens_per_second: float | None = None
    """Speed of the server; None if nobody has stated it, and no step of the store has measured it."""
    origin: str = ""
    """Origin of the speed, in words."""

    @property
    def seconds(self) -> float:
        """Seconds that it takes; zero if its speed is not known."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else 0.0


def server_work(dag: Dag, store: Store) -> dict[str, ServerWork]:
    """Return the work of servers by the id of the step that asks them.

    Args:
        dag: The steps.
        store: Store of the results, in which evaluations have measured speeds.
    """
    found = {}
    for step in dag.steps:
        evaluation = step if step.served else step.teacher
        if step.asks_server and evaluation and evaluation.foreign:
            tokens = evaluation.foreign.heldout_tokens if step.served else step.tokens
            found[step.id] = ServerWork(
                tokens=tokens, requests=tokens / step.shape.context, **_speed(evaluation, store)
            )
    return found


def with_servers(seconds: Cost, work: Mapping[str, ServerWork]) -> Cost:
    """Return ``seconds`` of a step and of the server that it waits for."""

    def both(step: Step) -> float:
        return seconds(step) + (work[step.id].seconds if step.id in work else 0.0)

    return both


def server_lines(work: Iterable[ServerWork]) -> Iterator[str]:
    """Yield for each server what it is asked, how long that takes, and where its speed is from."""
    each: dict[tuple[Any, ...], list[ServerWork]] = {}
    for some in work:
        each.setdefault((some.name, some.tokens_per_second, some.origin), []).append(some)
    for (name, speed, origin), asked in each.items():
        tokens, requests = sum(some.tokens for some in asked), sum(some.requests for some in asked)
        line = f"{name} scores {format_number(tokens)} tokens in {format_number(requests)} requests"
        if speed is None:
            yield f"{line}; its speed is not known, and its time not counted: set source.tokens_per_second"
        else:
            hours = sum(some.seconds for some in asked) / HOUR
            yield f"{line}: {hours:.2g} h at {format_number(speed)} tokens/s, {origin}"


def _speed(evaluation: Step, store: Store) -> dict[str, Any]:
    """Return name, speed and its origin of the server that ``evaluation`` asks."""
    assert evaluation.foreign is not None
    assert evaluation.foreign.served is not None
    served = evaluation.foreign.served
    if served.tokens_per_second:
        return {
            "name": served.name,
            "tokens_per_second": served.tokens_per_second,
            "origin": "stated in the spec",
        }
    found = (store.result(evaluation.id) or {}).get("served", {}) if store.exists() else {}
    measured = found.get("tokens_per_second")
    origin = f"measured by step {evaluation.id[:8]}" if measured else ""
    return {"name": served.name, "tokens_per_second": measured, "origin": origin}
