"""Protocols of Busbridge et al. 2025 (appendix E.2), which fix how the lengths of runs are given.

- ``fixed-m-teachers-isoflop-students``: teachers of several sizes at one D/N, students along IsoFLOP
  profiles. It shows how a student's loss depends on its size and tokens under a teacher.
- ``isoflop-teachers-fixed-m-students``: teachers along IsoFLOP profiles, students at one D/N. It shows that
  the effect of a teacher depends on its loss alone, and where a better one stops helping.
- ``fixed-m``: teachers at one D/N, students at one or several. It shows students better than their teachers.

A sweep without a protocol has free grids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from sweeps.spec.spec import Grid, Sweep

ProtocolName = Literal["fixed-m-teachers-isoflop-students", "isoflop-teachers-fixed-m-students", "fixed-m"]
MIN_PROFILE_SIZES = 3
"""Least number of sizes on an IsoFLOP profile; fewer show no minimum."""


class Lengths(NamedTuple):
    """Field that gives the lengths of a protocol's grids."""

    field: Literal["tokens_per_param", "flops"]
    several: bool = True
    """True if a grid may have more than one length."""


PROTOCOLS: dict[ProtocolName, tuple[Lengths, Lengths]] = {
    "fixed-m-teachers-isoflop-students": (Lengths("tokens_per_param", several=False), Lengths("flops")),
    "isoflop-teachers-fixed-m-students": (Lengths("flops"), Lengths("tokens_per_param", several=False)),
    "fixed-m": (Lengths("tokens_per_param", several=False), Lengths("tokens_per_param")),
}
"""Lengths of teachers and of students, by protocol."""


def protocol_violation(sweep: Sweep) -> str | None:
    """Describe how the grids of ``sweep`` violate its protocol; None if they follow it."""
    if sweep.protocol is None:
        return None
    if not sweep.students:
        return f"protocol {sweep.protocol}: needs 'teachers' and 'students'"
    teachers, students = PROTOCOLS[sweep.protocol]
    for grids, lengths in ((sweep.grids("teachers"), teachers), (sweep.grids("students"), students)):
        for where, grid in grids:
            if found := _grid_violation(grid, lengths):
                return f"protocol {sweep.protocol}: {where} {found}"
    return None


def _grid_violation(grid: Grid, lengths: Lengths) -> str | None:
    given = getattr(grid, lengths.field)
    if given is None:
        return f"must give its lengths as {lengths.field}"
    if not lengths.several and len(given) > 1:
        return f"must have one {lengths.field}, not {len(given)}"
    if lengths.field == "flops" and len(set(grid.params)) < MIN_PROFILE_SIZES:
        return (
            f"needs at least {MIN_PROFILE_SIZES} sizes for its IsoFLOP profiles, not {len(set(grid.params))}"
        )
    return None
