"""Device hours and dollars of FLOPs, by a dated table that the user can extend.

Peaks are dense. They were compared with public copies of the documents that they name, or with the tables of
torchtitan, lightning and llm-analysis, but for what is marked "from memory". Prices are list prices per
device hour, in US dollars, with their date and source; none is ever fetched. A table of the user's own, with
the same columns, is read beside the shipped one where the environment variable ``DISTLAW_HARDWARE`` names it;
its rows win.
"""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scaling.errors import InputError
from scaling.units import parse_quantity

TABLE = Path(__file__).with_name("hardware.csv")
OWN_TABLE = "DISTLAW_HARDWARE"
"""Environment variable that names the user's own table."""
PRECISIONS = ("bf16", "fp16", "fp8", "tf32", "fp32")
"""Number formats with a peak in the table, in the order in which one is chosen where none is asked for."""
HIGHEST_PEAK = 1e19
"""FLOP/s above which a number was meant as FLOP/s rather than TFLOP/s."""
UTILISATION = 0.4
"""Model FLOPs utilisation where none is given: training at scale reaches 0.3 to 0.5."""
SECONDS_PER_HOUR = 3600.0
COLUMNS = (
    *("name", "aliases", "memory_gb", *PRECISIONS, "peak_source", "peak_date"),
    *("dollars_per_hour", "price_date", "price_source"),
)
"""Columns of a table; all but the name and one peak may be missing or empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Devices, how well they are used, and what they cost.

    >>> from scaling import Hardware
    >>> device = Hardware(name="mine", precision="bf16", peak_flops=1e15, dollars_per_hour=2.0)
    >>> f"{device.device_hours(1e21):.0f} hours, ${device.dollars(1e21):,.0f}"
    '694 hours, $1,389'
    """

    name: str
    precision: str
    """Number format of the peak, such as bf16. The one for fp32 is without TF32, which rounds to 10 bits."""
    peak_flops: float
    """FLOP/s of one device, dense."""
    dollars_per_hour: float | None = None
    """Price of one device; None if unknown."""
    utilisation: float = UTILISATION
    """Share of the peak that training reaches."""
    count: int = 1
    """Devices used at once; they shorten the wait, not the bill."""
    memory_bytes: float | None = None
    """Memory of one device; None if unknown."""
    date: str = ""
    """Date of the price, or of the peak where there is no price."""
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise InputError(f"utilisation: must lie in (0, 1], not {self.utilisation!r}")
        for name in ("peak_flops", "dollars_per_hour", "count"):
            value = getattr(self, name)
            if name == "dollars_per_hour" and value is None:
                continue
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"hardware {self.name}: {name} must be positive, not {value!r}")

    @property
    def price(self) -> float:
        """Dollars of one device hour.

        Raises:
            InputError: If no price is known.
        """
        if self.dollars_per_hour is None:
            raise InputError(f"no list price of {self.name} is on record; give one (`dollars_per_hour` 2.50)")
        return self.dollars_per_hour

    def flops_in(self, device_hours: float) -> float:
        """FLOPs that one device computes in so many hours."""
        return device_hours * SECONDS_PER_HOUR * self.peak_flops * self.utilisation

    def device_hours(self, flops: float) -> float:
        """Hours of one device."""
        return flops / (self.peak_flops * self.utilisation * SECONDS_PER_HOUR)

    def wall_hours(self, flops: float) -> float:
        """Hours of waiting with ``count`` devices."""
        return self.device_hours(flops) / self.count

    def dollars(self, flops: float) -> float:
        """Cost of the device hours, US dollars.

        Raises:
            InputError: If no price is known.
        """
        return self.device_hours(flops) * self.price

    def describe(self) -> str:
        """Return what the hours and dollars rest on, in words."""
        price = f"${self.dollars_per_hour:g} per device hour" if self.dollars_per_hour else "no price known"
        rests = f" ({self.date}; {self.source})" if self.date else ""
        return (
            f"{self.count} x {self.name} at {self.utilisation:.0%} of {self.peak_flops:.4g} FLOP/s "
            f"({self.precision}), {price}{rests}"
        )

    @property
    def flops_per_dollar(self) -> float:
        """FLOPs that a dollar buys; 0 if no price is known, which leaves prices aside."""
        return 0.0 if self.dollars_per_hour is None else 1.0 / self.dollars(1.0)


def hardware(
    name: str,
    *,
    precision: str | None = None,
    utilisation: float = UTILISATION,
    count: int = 1,
    dollars_per_hour: float | None = None,
    peak_flops: float | None = None,
) -> Hardware:
    """Return a device of the table with the user's own numbers in place of those given.

    Args:
        name: As in the table or by another of its names: ``h100``, ``H100 SXM``, ``tpu v5p``.
        precision: Number format of the peak; the first of ``PRECISIONS`` that the device has, if not given.
        utilisation: Share of the peak that training reaches.
        count: Devices used at once.
        dollars_per_hour: Price of one device hour in place of the table's.
        peak_flops: Dense FLOP/s of one device in place of the table's.

    Returns:
        The device, which turns FLOPs into hours and dollars.

    Raises:
        InputError: For a device that is not in the table, unless peak and price are given, or for a number
            format in which it has no peak.

    >>> round(hardware("H100 SXM").device_hours(1e21), 1)
    701.9
    """
    rows = [row for row in device_table() if row.name == canonical(name)]
    row = next((each for each in rows if precision is None or each.precision == precision.lower()), None)
    if row is None:
        return _own(name, rows, precision, utilisation, count, dollars_per_hour, peak_flops)
    return Hardware(
        name=row.name,
        precision=row.precision,
        peak_flops=row.peak_flops if peak_flops is None else peak_flops,
        dollars_per_hour=row.dollars_per_hour if dollars_per_hour is None else dollars_per_hour,
        utilisation=utilisation,
        count=count,
        date=row.date,
        source=row.source,
        memory_bytes=row.memory_bytes,
    )


def _own(
    name: str,
    rows: list[Hardware],
    precision: str | None,
    utilisation: float,
    count: int,
    price: float | None,
    peak: float | None,
) -> Hardware:
    """Return a device that the table lacks, from the user's numbers alone."""
    if peak is None or price is None:
        raise InputError(f"{unknown_device(name, precision)}, or give its peak and its price")
    return Hardware(
        name=name,
        precision=precision or PRECISIONS[0],
        peak_flops=peak,
        dollars_per_hour=price,
        utilisation=utilisation,
        count=count,
        source="given by the user",
        memory_bytes=rows[0].memory_bytes if rows else None,
    )


def unknown_device(name: str, precision: str | None = None) -> str | None:
    """Return why the table has no device of this name, or no peak of it in a precision; None if it has.

    >>> unknown_device("v100", "bf16")
    'v100 has no bf16 peak in the table, only fp16, fp32; choose one of them'
    """
    rows = [row for row in device_table() if row.name == canonical(name)]
    if any(precision in (None, row.precision) for row in rows):
        return None
    if rows:
        formats = ", ".join(row.precision for row in rows)
        return f"{rows[0].name} has no {precision} peak in the table, only {formats}; choose one of them"
    near = difflib.get_close_matches(_spelled(name), _names(), n=3, cutoff=0.6)
    offered = dict.fromkeys(_names()[each] for each in near) or dict.fromkeys(
        row.name for row in device_table()
    )
    hint = f"did you mean {' or '.join(offered)}" if near else f"known are {', '.join(offered)}"
    return f"no hardware {name}: {hint}"


def canonical(name: str) -> str:
    """Return the table's name of a device; the text itself, spelled alike, if the table lacks it.

    >>> canonical("NVIDIA H100 80GB")
    'h100'
    """
    spelled, names = _spelled(name), _names()
    return names.get(spelled) or names.get(spelled.removesuffix("s"), spelled)


def _spelled(name: str) -> str:
    """Return ``name`` in lower case with hyphens, without the maker."""
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    return re.sub(r"^(nvidia|amd|google|aws|intel)-", "", plain)


def _names() -> dict[str, str]:
    """Return the table's name of every spelling."""
    return _read_tables(os.environ.get(OWN_TABLE, ""))[1]


def device_table() -> tuple[Hardware, ...]:
    """Return every device of the shipped table and of the user's, once for each precision.

    Raises:
        InputError: If the user's table cannot be read.
    """
    return _read_tables(os.environ.get(OWN_TABLE, ""))[0]


@cache
def _read_tables(own: str) -> tuple[tuple[Hardware, ...], dict[str, str]]:
    records = {record["name"]: record for record in _records(TABLE)}
    if own:
        records |= {_spelled(record["name"]): record for record in _records(Path(own))}
    names = {alias: name for name, record in records.items() for alias in _aliases(record)}
    rows = tuple(row for name, record in records.items() for row in _rows(name, record))
    return rows, names | {name: name for name in records}


def _records(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, records = reader.fieldnames or ["(empty file)"], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{OWN_TABLE}: cannot read {path}: {error}") from error
    if unknown := [each for each in columns if each not in COLUMNS]:
        raise InputError(f"{path}: unknown column {', '.join(unknown)}; columns are {', '.join(COLUMNS)}")
    for line, record in enumerate(records, start=2):
        if not (record.get("name") or "").strip() or not any(record.get(each) for each in PRECISIONS):
            raise InputError(
                f"{path}, line {line}: needs a name and a peak in TFLOP/s in one of {', '.join(PRECISIONS)}"
            )
        if any(_spelled(each["name"]) == _spelled(record["name"]) for each in records[: line - 2]):
            raise InputError(f"{path}, line {line}: {record['name']} has a row already")
    return records


def _aliases(record: Mapping[str, str | None]) -> list[str]:
    return [_spelled(each) for each in (record.get("aliases") or "").split(";") if each.strip()]


def _rows(name: str, record: Mapping[str, str | None]) -> list[Hardware]:
    """Return the device of a record in each precision that it has a peak in."""

    def number(column: str, scale: str = "") -> float | None:
        text = (record.get(column) or "").strip()
        return parse_quantity(text + scale, f"hardware {name}, {column}", "") if text else None

    def peak_of(precision: str) -> float | None:
        peak = number(precision, "T")
        if peak is not None and peak > HIGHEST_PEAK:
            raise InputError(
                f"hardware {name}, {precision}: {record[precision]} TFLOP/s is no device's peak; write 989 "
                "for 989e12"
            )
        return peak

    memory, price = number("memory_gb", "B"), number("dollars_per_hour")
    kind = "peak" if price is None else "price"
    sources = [record.get("peak_source"), record.get("price_source")]
    return [
        Hardware(
            name=name,
            precision=precision,
            peak_flops=peak,
            dollars_per_hour=price,
            memory_bytes=memory,
            date=record.get(f"{kind}_date") or "",
            source="; ".join(each for each in sources if each),
        )
        for precision in PRECISIONS
        if (peak := peak_of(precision)) is not None
    ]


def stored_bytes_per_token(
    vocab: int, top_k: int | None = None, *, probability_bytes: float = 4.0, index_bytes: float = 4.0
) -> float:
    """Return the storage that caching the teacher's distribution takes, bytes/token.

    The full distribution stores one number per vocabulary entry; with ``top_k``, that many numbers with their
    indices, and one more for the mass of the tail.
    """
    if top_k is None:
        return vocab * probability_bytes
    if not 0 < top_k <= vocab:
        raise InputError(f"top_k: must lie between 1 and the vocabulary, {vocab}, not {top_k:.6g}")
    return top_k * (probability_bytes + index_bytes) + probability_bytes
