"""From FLOPs to device hours and dollars, by a dated table that the user can override.

Peaks are dense. Prices are list prices per device hour, in US dollars, with their date and source; none is
ever fetched.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scaling.errors import InputError

TABLE = Path(__file__).with_name("hardware.csv")
UTILISATION = 0.4
"""Model FLOPs utilisation where none is given: training at scale reaches 0.3 to 0.5."""
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Devices, how well they are used, and what they cost."""

    name: str
    precision: str
    """Number format of the peak, such as bf16. The one for fp32 is without TF32, which rounds to 10 bits."""
    peak_flops: float
    """FLOP/s of one device, dense."""
    dollars_per_hour: float
    """Of one device."""
    utilisation: float = UTILISATION
    """Share of the peak that training reaches."""
    count: int = 1
    """Devices used at once; they shorten the wait, not the bill."""
    memory_bytes: float | None = None
    """Of one device; None if unknown."""
    date: str = ""
    """Of the price."""
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise InputError(f"utilisation: must lie in (0, 1], not {self.utilisation!r}")
        for name in ("peak_flops", "dollars_per_hour", "count"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"hardware {self.name}: {name} must be positive, not {value!r}")

    def device_hours(self, flops: float) -> float:
        """Hours of one device."""
        return flops / (self.peak_flops * self.utilisation * SECONDS_PER_HOUR)

    def wall_hours(self, flops: float) -> float:
        """Hours of waiting with ``count`` devices."""
        return self.device_hours(flops) / self.count

    def dollars(self, flops: float) -> float:
        """What the device hours cost."""
        return self.device_hours(flops) * self.dollars_per_hour

    @property
    def flops_per_dollar(self) -> float:
        """What a dollar computes."""
        return 1.0 / self.dollars(1.0)


def hardware(
    name: str,
    *,
    precision: str = "bf16",
    utilisation: float = UTILISATION,
    count: int = 1,
    dollars_per_hour: float | None = None,
    peak_flops: float | None = None,
) -> Hardware:
    """A device of the table with the user's own numbers in place of those given."""
    rows = table()
    found = [row for row in rows if (row.name, row.precision) == (name.lower(), precision.lower())]
    if not found and (dollars_per_hour is None or peak_flops is None):
        known = ", ".join(f"{row.name} {row.precision}" for row in rows)
        raise InputError(f"no hardware {name} {precision}; known are {known}; or give its peak and its price")
    base = found[0] if found else None
    return Hardware(
        name=name,
        precision=precision,
        peak_flops=peak_flops if peak_flops is not None else (base.peak_flops if base else 0.0),
        dollars_per_hour=dollars_per_hour
        if dollars_per_hour is not None
        else (base.dollars_per_hour if base else 0.0),
        utilisation=utilisation,
        count=count,
        date=base.date if base else "",
        source=base.source if base else "given by the user",
        memory_bytes=base.memory_bytes if base else None,
    )


@cache
def table() -> tuple[Hardware, ...]:
    """Every row of the shipped table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Hardware(
                name=row["name"],
                precision=row["precision"],
                peak_flops=float(row["peak_flops"]),
                dollars_per_hour=float(row["dollars_per_hour"]),
                date=row["date"],
                source=row["source"],
                memory_bytes=float(row["memory_bytes"]),
            )
            for row in csv.DictReader(file)
        )


def stored_bytes_per_token(
    vocab: int, top_k: int | None = None, *, probability_bytes: float = 4.0, index_bytes: float = 4.0
) -> float:
    """What caching the teacher's distribution costs, bytes/token.

    The full distribution stores one number per vocabulary entry; with ``top_k``, that many numbers with their
    indices, and one more for the mass of the tail.
    """
    if top_k is None:
        return vocab * probability_bytes
    if not 0 < top_k <= vocab:
        raise InputError(f"top_k: must lie between 1 and the vocabulary, {vocab}, not {top_k:.6g}")
    return top_k * (probability_bytes + index_bytes) + probability_bytes
