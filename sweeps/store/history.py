"""Attempts of a store, read incrementally and many at a time: records that cannot change are read once."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from sweeps.store import clock
from sweeps.store.leases import Attempt, assemble_attempts, attempt_files, attempt_path, latest_number
from sweeps.store.listing import attempt_names
from sweeps.store.outcomes import Ending
from sweeps.store.store import Place, Store

LISTING_SHARE = 0.05
"""Largest share of the time that an object store is listed as a whole; a small one is with every reading."""


class AttemptHistory:
    """Attempts at every step ever started in a store, of any sweep.

    It answers :meth:`names`, :meth:`read` and :meth:`read_bytes` as the store did when a step was last
    refreshed.
    """

    def __init__(self, store: Store, contents: Mapping[str, Iterable[str]] | None = None) -> None:
        self.store, self._contents = store, contents
        self.over: set[str] = set()
        """Steps that are done, whose cost cannot change."""
        self.asked: dict[str, float] = {}
        """Time before each step was last refreshed, by the clock."""
        self._names: dict[str, list[str]] = {}
        self._raw: dict[str, dict[Place, bytes]] = {}
        """Files of each step's attempts that are not settled."""
        self._parsed: dict[str, dict[Place, tuple[bytes, dict[str, Any]]]] = {}
        """Records of these files, each with the content that it was parsed from."""
        self._ended: dict[str, dict[int, Attempt]] = {}
        """Settled attempts of each step."""
        self._open: set[str] = set()
        """Steps with attempts that are not settled."""
        self._listing_due = -math.inf

    def read_unfinished(
        self, steps: Iterable[str] = (), exited: Container[str] = ()
    ) -> dict[str, list[Attempt]]:
        """Read attempts by step, oldest first; after the first call, only those of unfinished steps.

        From a large object store these are ``steps``, and those that had an attempt under way; all others
        only as often as their listing allows.

        Args:
            steps: steps of interest.
            exited: steps whose last attempt's process has exited, so that its record must be the last.
        """
        listed = {step: names for step, names in self._listing() if names}
        self._fetch(listed)
        under_way = sorted(set(steps).union(self._open) - self.over - set(listed))
        self.refresh(step for step in under_way if step in exited)
        self.refresh((step for step in under_way if step not in exited), lazily=True)
        found = {step: history for step in [*listed, *under_way] if (history := self.of(step))}
        for step, history in found.items():
            if history[-1].ending is Ending.DONE and history[-1].settled:
                self.over.add(step)
                self.forget(step)
        return found

    def refresh(self, steps: Iterable[str], *, lazily: bool = False) -> None:
        """Read what may have changed of the attempts at ``steps``.

        With ``lazily``, a step whose heartbeat has changed since it was last read is not looked at further:
        its last attempt lived until then. So an ending is found one reading later.
        """
        wanted = list(dict.fromkeys(steps))
        if lazily and not self.store.local:
            wanted = self._without_new_beats(wanted)
        asked = clock.monotonic()
        names = self.store.names_all((step, "attempts") for step in wanted)
        self._fetch({step: names[step, "attempts"] for step in wanted}, asked)

    def _without_new_beats(self, steps: list[str]) -> list[str]:
        """Read the heartbeats of ``steps``, and return the steps without a new one."""
        asked = clock.monotonic()
        beats: dict[Place, str] = {
            attempt_path(step, latest_number(self._names[step]), "beat"): step
            for step in steps
            if step in self._open and self._names.get(step)
        }
        fresh = set()
        for place, raw in self.store.read_bytes_all(beats).items():
            step = beats[place]
            if raw != self._raw[step].get(place):
                self._raw[step][place], self.asked[step] = raw, asked
                fresh.add(step)
        return [step for step in steps if step not in fresh]

    def of(self, step: str) -> list[Attempt]:
        """Return the attempts at a step, oldest first, as they were last read."""
        ended, raw = self._ended.get(step, {}), self._raw.get(step, {})
        files = {place: self._parse(data, place) for place, data in raw.items()}
        return assemble_attempts(step, self._names.get(step, []), files, ended)

    def _parse(self, raw: bytes, place: Place) -> dict[str, Any]:
        """Parse a record, unless its content is that of the last time; callers must not change it."""
        records = self._parsed.setdefault(place[0], {})
        if place not in records or records[place][0] != raw:
            records[place] = raw, self.store.parse(raw, *place)
        return records[place][1]

    def forget(self, step: str) -> None:
        """Drop what is held of a step."""
        for held in (self._names, self._raw, self._parsed, self._ended, self.asked):
            held.pop(step, None)
        self._open.discard(step)

    def names(self, *place: str) -> list[str]:
        """Return the names in a step's directory of attempts."""
        held = self._names.get(place[0]) if place[1:] == ("attempts",) else None
        return self.store.names(*place) if held is None else held

    def read(self, *place: str) -> dict[str, Any] | None:
        """Read the JSON object at ``place``, or None if it does not exist."""
        held = self._raw.get(place[0])
        if held is None or place[1] != "attempts":
            return self.store.read(*place)
        return self._parse(held[place], place) if place in held else None

    def read_bytes(self, *place: str) -> bytes | None:
        """Read the content of a file, or None if it does not exist."""
        held = self._raw.get(place[0]) if place[1] == "attempts" else None
        return self.store.read_bytes(*place) if held is None else held.get(place)

    def _fetch(self, listed: Mapping[str, list[str]], asked: float | None = None) -> None:
        """Read the files of attempts that are not settled, of steps whose names were listed just now."""
        asked = clock.monotonic() if asked is None else asked
        wanted: list[Place] = []
        for step, names in listed.items():
            kept = self._raw.get(step, {})
            places = [(step, "attempts", name) for name in attempt_files(names, self._ended.get(step, {}))]
            self._raw[step] = {place: kept[place] for place in places if place in kept and _final(place)}
            wanted += [place for place in places if place not in self._raw[step]]
        for place, raw in self.store.read_bytes_all(wanted).items():
            self._raw[place[0]][place] = raw
        for step, names in listed.items():
            self._names[step], self.asked[step] = names, asked
            self._settle(step)

    def _settle(self, step: str) -> None:
        """Keep the records of settled attempts, and note if others are under way."""
        history = self.of(step)
        self._ended[step] = {each.number: each for each in history if each.settled}
        if len(self._ended[step]) < len(history):
            self._open.add(step)
        else:
            self._open.discard(step)
            self._parsed.pop(step, None)

    def _listing(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the files in ``attempts`` of unfinished steps, if the whole store is to be listed now."""
        began = clock.monotonic()
        if began < self._listing_due:
            return
        if self._listing_due == -math.inf:
            for step, names in (self._contents or self.store.contents()).items():
                yield step, attempt_names(names)
        else:
            steps = [step for step in self.store.names() if step not in self.over and "." not in step]
            for place, names in self.store.names_all((step, "attempts") for step in steps).items():
                yield place[0], names
        took = 0.0 if self.store.local else clock.monotonic() - began
        self._listing_due = began + took / LISTING_SHARE


def _final(place: Place) -> bool:
    """Return True for a claim, which never changes."""
    return place[-1].count(".") == 1


def count_failures(history: Iterable[Attempt], ending: Ending) -> int:
    """Count attempts with this ending, except lost ones that progressed further than all before."""
    count, furthest = 0, 0
    for attempt in history:
        further = attempt.done > furthest
        furthest = max(furthest, attempt.done)
        alike = (attempt.ending or Ending.LOST) == ending
        count += alike and not (further and ending is Ending.LOST)
    return count
