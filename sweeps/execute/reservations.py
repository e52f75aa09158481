"""What drivers mean to spend, in one order that all of them see.

::

    store/reservations/00000001.json    attempts that one driver is about to begin, and what they may cost

Entry n is created at most once, and only by who has read all before it: so of two drivers that want the last
of a budget at the same moment, the second finds what the first took, on any store that creates a file once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sweeps.estimate.bill import Bill
from sweeps.store.leases import create
from sweeps.store.store import Store

FOLDER = "reservations"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one attempt may cost."""

    driver: str
    job: str
    step: str
    number: int
    bill: Bill


class Reservations:
    """All reservations ever made in a store, read as they come."""

    def __init__(self, store: Store) -> None:
        self.store, self.read_to = store, 0
        self.of_job: dict[tuple[str, str], Reservation] = {}
        """By job and step."""
        self.newest: dict[tuple[str, str], Reservation] = {}
        """By driver and step: a driver that reserves again has given up what it reserved before."""

    def read(self) -> None:
        """Read those made since the last time."""
        while entry := self.store.read(FOLDER, _name(self.read_to + 1)):
            self.read_to += 1
            for told in entry["attempts"]:
                made = Reservation(**{**told, "bill": Bill(**told["bill"])})
                self.of_job[made.job, made.step] = self.newest[made.driver, made.step] = made

    def add(self, made: list[Reservation]) -> bool:
        """Make reservations; False if others were made since the last reading, and none of these is."""
        entry = {"attempts": [asdict(each) for each in made]}
        return create(self.store, entry, FOLDER, _name(self.read_to + 1))


def _name(number: int) -> str:
    return f"{number:08d}.json"
