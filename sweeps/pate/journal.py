"""Groups of released sequences and their ledger in a store: written as they come, continued after a kill.

::

    store/<step>/release/settings.json   key of the random numbers, threshold
    store/<step>/release/00000.json      sequences of a group, and the ledger's counts after it
    store/<step>/release/report.json     promise and cost, once all are written
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.pate.generator import Group
from sweeps.store.store import Store

FOLDER = "release"


@dataclass(frozen=True)
class ReleaseJournal:
    """Record of one step's release."""

    store: Store
    step: str

    def settings(self, key: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was settled before the first query; found and written if it is not there.

        Args:
            key: Text that the random numbers follow from.
            find: Settles the rest, as JSON.

        Raises:
            InputError: If what is there belongs to another key.
        """
        settled = self.store.read(self.step, FOLDER, "settings.json")
        if settled is None:
            settled = {"key": key} | find()
            self.store.write(settled, self.step, FOLDER, "settings.json")
        if settled.get("key") != key:
            raise InputError(
                f"{self.store.root}/{self.step}/{FOLDER}: a release of other data or options lies there; its "
                "random numbers must not answer for these: delete the step's folder"
            )
        return settled

    def groups(self) -> list[Group]:
        """Return the groups that are written, in order, up to the first that is missing."""
        found: list[Group] = []
        while (record := self.store.read(self.step, FOLDER, f"{len(found):05d}.json")) is not None:
            try:
                found.append(Group(**record))
            except TypeError:
                raise InputError(
                    f"{self.store.root}/{self.step}/{FOLDER}/{len(found):05d}.json: damaged; delete it to "
                    "write it again, with the same answers"
                ) from None
        return found

    def written(self, groups: Iterator[Group], first: int) -> Iterator[Group]:
        """Write ``groups`` as they come, the first as number ``first``; yield each."""
        for number, group in enumerate(groups, first):
            self.store.write(asdict(group), self.step, FOLDER, f"{number:05d}.json")
            yield group

    def report(self) -> dict[str, Any] | None:
        """Return the report of a finished release."""
        return self.store.read(self.step, FOLDER, "report.json")

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report."""
        self.store.write(report, self.step, FOLDER, "report.json")


def packed(groups: list[Group], start: int) -> NDArray[np.int64]:
    """Return all sequences in one stream of tokens, each after the start token, and one more at the end."""
    pieces = [[start, *sequence] for group in groups for sequence in group.sequences if sequence]
    return np.array([token for piece in pieces for token in piece] + [start], np.int64)


def blocks_of(stream: NDArray[np.int64], numbers: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Return blocks of the stream by number, ``(numbers, context + 1)``; after the last the first follows.

    Raises:
        InputError: If the stream has no whole block.
    """
    count = (len(stream) - 1) // context
    if not count:
        raise InputError(
            f"source: the release gave {len(stream) - 2} tokens, and a block needs {context}; raise epsilon, "
            "queries or teachers, or lower the threshold"
        )
    starts = numbers % count * context
    return stream[starts[:, None] + np.arange(context + 1)]
