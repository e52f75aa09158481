"""Attempts of a store, read incrementally: records that cannot change are read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sweeps.store.leases import Attempt, assemble_attempts, attempt_files
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store


class AttemptHistory:
    """Attempts at every step ever started in a store, of any sweep."""

    def __init__(self, store: Store, contents: Mapping[str, Iterable[str]] | None = None) -> None:
        self.store, self._contents = store, contents
        self.over: set[str] = set()
        """Steps that are done, whose cost cannot change."""
        self._ended: dict[str, dict[int, Attempt]] = {}
        self._read_before = False

    def read(self) -> dict[str, list[Attempt]]:
        """Read attempts by step, oldest first; after the first call, only those of unfinished steps."""
        listed = {step: names for step, names in self._listing() if names}
        wanted = {step: attempt_files(names, self._ended.get(step, {})) for step, names in listed.items()}
        files = self.store.read_all(
            (step, "attempts", name) for step, names in wanted.items() for name in names
        )
        found = {
            step: assemble_attempts(step, names, files, self._ended.get(step, {}))
            for step, names in listed.items()
        }
        for step, history in found.items():
            self._ended[step] = {each.number: each for each in history if each.settled}
            if history and history[-1].ending is Ending.DONE and history[-1].settled:
                self.over.add(step)
                del self._ended[step]
        return found

    def _listing(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the files in ``attempts`` of unfinished steps; at the first call with one listing."""
        if not self._read_before:
            self._read_before = True
            for step, names in (self._contents or self.store.contents()).items():
                yield (
                    step,
                    [name.removeprefix("attempts/") for name in names if name.startswith("attempts/")],
                )
            return
        for step in self.store.names():
            if step not in self.over and "." not in step:
                yield step, self.store.names(step, "attempts")


def count_failures(history: Iterable[Attempt], ending: Ending) -> int:
    """Count attempts with this ending, except lost ones that progressed further than all before."""
    count, furthest = 0, 0
    for attempt in history:
        further = attempt.done > furthest
        furthest = max(furthest, attempt.done)
        alike = (attempt.ending or Ending.LOST) == ending
        count += alike and not (further and ending is Ending.LOST)
    return count
