"""The three protocols of Busbridge et al. 2025 (appendix E.2) by name: how long teachers and students train.

- ``fixed-m-teachers-isoflop-students``: teachers of several sizes at one D/N, students along IsoFLOP
  profiles. Shows how a student's loss depends on its size and tokens under a teacher.
- ``isoflop-teachers-fixed-m-students``: teachers along IsoFLOP profiles, students at one D/N. Shows that a
  teacher acts through its loss alone, and where a better one stops helping.
- ``fixed-m``: teachers at one D/N, students at one or several. Shows students that outgrow their teachers.

A sweep that names none is a free grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from sweeps.spec.spec import Grid, Sweep

ProtocolName = Literal["fixed-m-teachers-isoflop-students", "isoflop-teachers-fixed-m-students", "fixed-m"]
PROFILE = 3
"""Sizes at least on an IsoFLOP profile: fewer show no minimum."""


class Lengths(NamedTuple):
    """How the lengths of a protocol's grids are given."""

    field: Literal["tokens_per_param", "flops"]
    several: bool = True
    """Whether a grid may have more than one."""


PROTOCOLS: dict[ProtocolName, tuple[Lengths, Lengths]] = {
    "fixed-m-teachers-isoflop-students": (Lengths("tokens_per_param", several=False), Lengths("flops")),
    "isoflop-teachers-fixed-m-students": (Lengths("flops"), Lengths("tokens_per_param", several=False)),
    "fixed-m": (Lengths("tokens_per_param", several=False), Lengths("tokens_per_param")),
}
"""Of teachers and of students."""


def departure(sweep: Sweep) -> str | None:
    """Where the grids of ``sweep`` are not those of the protocol it names, in words; None if they are."""
    if sweep.protocol is None:
        return None
    if not sweep.students:
        return f"protocol {sweep.protocol}: needs 'teachers' and 'students'"
    teachers, students = PROTOCOLS[sweep.protocol]
    for grids, lengths in ((sweep.grids("teachers"), teachers), (sweep.grids("students"), students)):
        for where, grid in grids:
            if found := _departure(grid, lengths):
                return f"protocol {sweep.protocol}: {where} {found}"
    return None


def _departure(grid: Grid, lengths: Lengths) -> str | None:
    given = getattr(grid, lengths.field)
    if given is None:
        return f"must give its lengths as {lengths.field}"
    if not lengths.several and len(given) > 1:
        return f"must have one {lengths.field}, not {len(given)}"
    if lengths.field == "flops" and len(set(grid.params)) < PROFILE:
        return f"needs at least {PROFILE} sizes for its IsoFLOP profiles, not {len(set(grid.params))}"
    return None
