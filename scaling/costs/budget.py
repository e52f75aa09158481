"""Budgets as people give them: FLOPs, device hours, devices for a time, or dollars.

``1e21``, ``1000 H100-hours``, ``10k gpu-hours on h200``, ``64 b200 for 10 days``, ``$5000 on h100``,
``10 PF-days``. Hours and dollars are converted at the device's peak, the share of it that training reaches,
and its list price.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

from scaling.costs.hardware import Hardware, canonical, hardware
from scaling.errors import InputError
from scaling.units import format_flops, format_number, parse_quantity

EXAMPLES = "1e21, '1000 h100-hours', '64 b200 for 10 days' or '$5000 on h100'"
HOURS = {"h": 1.0, "hr": 1.0, "hour": 1.0, "day": 24.0, "week": 168.0, "month": 730.0, "year": 8760.0}
"""Hours of a unit of time; a month is a twelfth of a year."""
PETAFLOP_DAY = 1e15 * 86400.0
"""FLOPs of a petaflop/s-day."""
GENERIC = ("gpu", "device", "accelerator", "card", "chip")
"""Words for a device that do not say which one."""

_UNITS = r"hours?|hrs?|h|days?|weeks?|months?|years?"
_TIME = rf"(?P<time>{_UNITS})"
_ON = r"(?:\s+(?:on|of|with)\s+(?:an?\s+)?(?P<on>[a-z][a-z0-9 _-]*?))?"
_DEVICE = r"(?P<device>[a-z][a-z0-9 _-]*?|[0-9]{4})"
_FORMS = {
    "petaflop days": re.compile(r"(?P<number>[^\s]+)\s*p(?:eta)?\s?f(?:lops?)?(?:/s)?\s?[- ]\s?days?"),
    "dollars": re.compile(rf"(?:(?:us)?\$|usd)\s*(?P<number>[^\s$]+(?:\s?[kmb])?){_ON}"),
    "dollar words": re.compile(rf"(?P<number>[^\s$]+(?:\s?[kmb])?)\s*(?:us\s+)?(?:dollars?|usd|\$){_ON}"),
    "devices for": re.compile(
        rf"(?P<count>[^\s]+?)\s*(?:x|\*|\s)\s*{_DEVICE}\s+for\s+(?P<number>[^\s]+)\s*{_TIME}{_ON}"
    ),
    "hours on": re.compile(rf"(?P<number>[^\s]+)\s+{_TIME}\s+on\s+(?:an?\s+)?(?P<on>[a-z][a-z0-9 _-]*)"),
    "device hours": re.compile(rf"(?P<number>[^\s]+)\s+{_DEVICE}(?:\s*-\s*|\s+){_TIME}{_ON}"),
}
_SIGNS = str.maketrans({"\u00b7": "-", "\u22c5": "-", "\u00d7": "x"})
"""Dots and crosses of products, as in GPU·h and 64×H100."""
_FOREIGN = re.compile(r"[€£¥₹]|\b(?:eur|euros?|gbp|pounds?|chf|cny|rmb|yen|jpy|inr)\b")


@dataclass(frozen=True, slots=True)
class Budget:
    """Compute to spend, in FLOPs, with the device that counts it in hours and dollars."""

    flops: float
    hardware: Hardware | None = None
    """Devices that compute; None where FLOPs were given and no device."""

    def describe(self) -> str:
        """Return the budget in all three units: ``1e21 FLOPs (1 ZFLOP) = 702 h100-hours = $1.75K``."""
        parts = [format_flops(self.flops)]
        if self.hardware is not None:
            parts.append(
                f"{format_number(self.hardware.device_hours(self.flops))} {self.hardware.name}-hours"
            )
            if self.hardware.dollars_per_hour is not None:
                parts.append(f"${format_number(self.hardware.dollars(self.flops))}")
        return " = ".join(parts)

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the budget in all three units; None where no device counts them, or no price is known."""
        device = self.hardware
        return {
            "flops": self.flops,
            "device": None if device is None else device.name,
            "device_hours": None if device is None else device.device_hours(self.flops),
            "dollars": device.dollars(self.flops) if device and device.dollars_per_hour is not None else None,
        }


def parse_budget(value: str | SupportsFloat, what: str = "budget", device: Hardware | None = None) -> Budget:
    """Read a budget in FLOPs, device hours, devices for a time, or dollars.

    Args:
        value: A number of FLOPs, or a text such as those of ``EXAMPLES``.
        what: Names the quantity in errors.
        device: What GPU-hours and dollars are counted on where the text names no device. Its precision,
            utilization and price hold for a device that the text names, too, if they are the same.

    Raises:
        InputError: For any other text, an unknown device, one that contradicts ``device``, hours or dollars
            without a device, and currencies other than US dollars.

    >>> parse_budget("64 b200 for 10 days").describe()
    '4.98e22 FLOPs (49.8 ZFLOP) = 15.4K b200-hours = $57.6K'
    """
    match = _matched(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str):
            _refuse_money(value, what)
        return Budget(parse_quantity(value, what, "FLOPs"), device)
    form, found = match
    number = "1" if found["number"] in ("a", "an") else found["number"].replace(" ", "")
    amount = parse_quantity(number, what, "")
    if form == "petaflop days":
        return _finite(Budget(amount * PETAFLOP_DAY, device), value, what)
    on = _device(found, str(value), what, device)
    if form.startswith("dollar"):
        if on.dollars_per_hour is None:
            raise InputError(
                f"{what}: no list price of {on.name} is on record; give one (`dollars_per_hour` 2.50)"
            )
        return _finite(Budget(on.flops_in(amount / on.dollars_per_hour), on), value, what)
    hours = amount * HOURS[found["time"].removesuffix("s")]
    if form == "devices for":
        count = parse_quantity(found["count"], what, "")
        if count != int(count):
            raise InputError(f"{what}: {value!r} names {count:g} devices; write a whole number")
        if on.count not in (1, int(count)):
            raise InputError(f"{what}: {value!r} names {count:g} devices, but {on.count} are given (`count`)")
        hours *= count
        on = replace(on, count=int(count))
    return _finite(Budget(on.flops_in(hours), on), value, what)


def device_named(text: str) -> str:
    """Return the device that a budget's text names; empty if it names none.

    >>> device_named("1000 H100-hours"), device_named("10k gpu-hours"), device_named("1e21")
    ('h100', '', '')
    """
    match = _matched(text)
    return "".join(_named(match[1])[-1:]) if match else ""


def parse_several_budgets(
    values: Sequence[str | SupportsFloat], what: str, device: Hardware | None = None
) -> list[Budget]:
    """Read budgets that belong together, such as the ends of a range.

    Raises:
        InputError: As :func:`parse_budget`, and where a bare number stands beside hours or dollars: the 1000
            of ``1000:5000 h100-hours`` is hardly FLOPs.

    >>> [f"{each.flops:.3g}" for each in parse_several_budgets(["10 h100-hours", "1e21 FLOPs"], "budgets")]
    ['1.42e+19', '1e+21']
    """
    texts = [str(value) for value in values]
    bare = [text for text in texts if _matched(text) is None and "flop" not in text.lower()]
    if bare and any(_matched(text) for text in texts):
        raise InputError(
            f"{what}: {bare[0]!r} has no unit, but others of {', '.join(texts)} have; give each a unit"
        )
    return [parse_budget(value, what, device) for value in values]


def _matched(text: str) -> tuple[str, dict[str, str]] | None:
    plain = re.sub(r"\s+", " ", text.strip().lower().translate(_SIGNS))
    for form, pattern in _FORMS.items():
        if found := pattern.fullmatch(plain):
            return form, {name: each for name, each in found.groupdict().items() if each}
    return None


def _named(found: dict[str, str]) -> list[str]:
    """Return the devices of a match by the table's names, each once; none for ``gpu``."""
    names = [found[part].strip() for part in ("device", "on") if part in found]
    return list(dict.fromkeys(canonical(each) for each in names if each.rstrip("s") not in GENERIC))


def _device(found: dict[str, str], text: str, what: str, given: Hardware | None) -> Hardware:
    """Return the device of the text, or the one given; they must agree."""
    names = _named(found)
    if len(names) > 1:
        raise InputError(f"{what}: {text!r} names {' and '.join(names)}; name one of them")
    name = "".join(names)
    if not name and given is None:
        unit = "dollars buy compute on a device" if "time" not in found else "these hours are of a device"
        raise InputError(
            f"{what}: {text!r} names no device, and {unit}; write '{text.strip()} on h100', or name one "
            "(`device` h100)"
        )
    if name and given is not None and canonical(given.name) != name:
        raise InputError(
            f"{what}: {text!r} names {name}, but the device given is {given.name}; name one of them"
        )
    if given is not None:
        return given
    try:
        return hardware(name)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _refuse_money(text: str, what: str) -> None:
    """Refuse what is neither FLOPs nor any of the forms, where it can be told what was meant."""
    plain = text.strip().lower()
    if _FOREIGN.search(plain):
        raise InputError(
            f"{what}: {text!r} is no amount of US dollars, in which prices are; convert it, and write "
            "'$5400 on h100'"
        )
    if "$" in plain or re.search(rf"dollar|usd|(?:{_UNITS})\b", plain):
        raise InputError(f"{what}: cannot read {text!r}; write {EXAMPLES}")


def _finite(budget: Budget, value: object, what: str) -> Budget:
    if not (math.isfinite(budget.flops) and budget.flops > 0):
        raise InputError(f"{what}: {value!r} is no finite amount of compute")
    return budget
