"""Reservations of cost by drivers, in one order that all of them see.

::

    store/reservations/00000001.json    attempts that one driver is about to start, with their estimated cost

Entry n is created at most once, by a driver that has read all before it. So if two drivers want the rest of a
budget at the same time, the second finds the reservation of the first, on any store that creates a file once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sweeps.estimate.bill import Bill
from sweeps.store.leases import create_once
from sweeps.store.store import Store

FOLDER = "reservations"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Reserved cost of one attempt."""

    driver: str
    job: str
    step: str
    number: int
    bill: Bill


class Reservations:
    """Reservations of a store, read incrementally."""

    def __init__(self, store: Store) -> None:
        self.store, self.read_to = store, 0
        self.of_job: dict[tuple[str, str], Reservation] = {}
        """Reservations by job and step."""
        self.newest: dict[tuple[str, str], Reservation] = {}
        """Reservations by driver and step; a new one replaces that before."""

    def read(self) -> None:
        """Read the new reservations."""
        while entry := self.store.read(FOLDER, _name(self.read_to + 1)):
            self._take_in(
                [Reservation(**{**told, "bill": Bill(**told["bill"])}) for told in entry["attempts"]]
            )

    def _take_in(self, made: list[Reservation]) -> None:
        self.read_to += 1
        for each in made:
            self.of_job[each.job, each.step] = self.newest[each.driver, each.step] = each

    def add(self, made: list[Reservation]) -> bool:
        """Add reservations; False, without adding any, if others were added since the last reading."""
        entry = {"attempts": [asdict(each) for each in made]}
        if not create_once(self.store, entry, FOLDER, _name(self.read_to + 1)):
            return False
        self._take_in(made)
        return True


def _name(number: int) -> str:
    return f"{number:08d}.json"
