"""Quantities as people write them: ``1e21``, ``143M``, ``1.5B``, ``300e6``, ``28B tokens``, ``20:1``.

One grammar for the command line, specs, catalogues, tables, the HTTP API and Python, described in
``docs/reference/quantities.md``; what is not in it is refused. ``read`` in ``numbers.js`` is the page's copy.
``K``, ``M``, ``B``, ``T`` are decimal (1e3, 1e6, 1e9, 1e12) in either case; with ``FLOP`` the SI prefixes up
to ``Y`` work too. Rounding happens here, on the way to the screen, and nowhere else.
"""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import pairwise
from typing import Literal, SupportsFloat

from scaling.errors import InputError

Unit = Literal["params", "tokens", "FLOPs", "FLOP/s", ""]
"""Unit of a quantity; "" is a bare number."""
SCALES = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12}
"""Powers of ten."""
FLOP_SCALES = {"g": 9, "p": 15, "e": 18, "z": 21, "y": 24}
"""SI prefixes that mean something only before the word FLOP."""
MODEL_SIZES = 1e3, 1e16
"""Parameters between which laws may be asked at all."""
GRAMMAR = "docs/reference/quantities.md"

_NUMBER = (
    r"(?P<number>[+-]?(?:[1-9][0-9]{0,2}(?:(?:_[0-9]{3})+|(?:,[0-9]{3}){2,})(?:\.[0-9]+)?"  # grouped
    r"|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+))(?:e(?P<exponent>[+-]?[0-9]{1,4}))?"
)
_QUANTITY = re.compile(
    _NUMBER + r" *(?P<scale>[kmbtgpezy]?) *(?P<unit>flops?(?:/s)?|tokens?|param(?:eter)?s?|)",
    re.ASCII | re.IGNORECASE,
)
_PLAIN = re.compile(_NUMBER, re.ASCII | re.IGNORECASE)
_SPACES = str.maketrans(dict.fromkeys("\t\n\r\u00a0\u2009\u202f", " "))
_RESTATED = 6e-3
"""Relative difference that rounding may leave between the parts of ``3.2e20 FLOPs (0.32 ZFLOP)``."""


MOST_TIMES = 1e6
"""Factors beyond are all the same to a reader."""


def parse_quantity(
    value: str | SupportsFloat, what: str, unit: Unit | None = None, *, zero: bool = False
) -> float:
    """Read a positive finite number, or a text such as ``143M`` or ``1e21 FLOPs``.

    Args:
        value: A number, or a text in the grammar of ``docs/reference/quantities.md``.
        what: Names the quantity in errors.
        unit: The unit that a text may name; any, if not given.
        zero: Accept zero.

    Raises:
        InputError: For anything else, saying how to write it.

    >>> parse_quantity("1.5B", "--student")
    1500000000.0
    """
    number = _read(value, what, unit) if isinstance(value, str) else _as_float(value, what)
    if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        raise InputError(f"{what}: must be {'0 or more' if zero else 'positive'} and finite, not {value!r}")
    return number


def parse_number(value: str | SupportsFloat, what: str) -> float:
    """Read a finite number of any sign, without K, M, B, T or a unit: ``1e-3``, ``0.5``, ``-2``.

    Raises:
        InputError: For anything else.
    """
    if not isinstance(value, str):
        number = _as_float(value, what)
    elif match := _PLAIN.fullmatch(_stripped(value)):
        number = _scaled(match, 0)
    else:
        raise InputError(f"{what}: cannot read {value!r} as a number; {_advice(value, '0.5, 20 or 1e-3')}")
    if not math.isfinite(number):
        raise InputError(f"{what}: must be finite, not {value!r}")
    return number


def parse_count(value: str | SupportsFloat, what: str) -> int:
    """Read a whole number, all of whose digits are written: ``4096``, not ``4k``, which may mean 4000 too.

    Raises:
        InputError: For anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+ *k", value.strip(), re.IGNORECASE):
        raise InputError(
            f"{what}: cannot read {value!r} as a number, k being 1000 or 1024; write all digits: 4000, 4096"
        )
    number = parse_number(value, what)
    if not number.is_integer():
        raise InputError(f"{what}: must be a whole number, not {value!r}")
    return int(number)


def parse_tokens(value: str | SupportsFloat, params: float | None, what: str) -> float:
    """Read tokens: a quantity, or a ratio such as ``20:1``, which is 20 tokens for each of ``params``.

    Raises:
        InputError: For anything else, and for a ratio where ``params`` is None.
    """
    if not (isinstance(value, str) and ":" in value):
        return parse_quantity(value, what, "tokens")
    if params is None:
        raise InputError(f"{what}: {value!r} is per parameter, but the size is not known; write tokens")
    return params * parse_ratio(value, what)


def parse_ratio(value: str | SupportsFloat, what: str) -> float:
    """Read a ratio: a number such as ``20``, or ``20:1``."""
    if not isinstance(value, str):
        return parse_quantity(value, what)
    first, colon, second = value.partition(":")
    ratio = parse_quantity(first, what, "")
    return ratio / parse_quantity(second, what, "") if colon else ratio


def parse_list(text: str, what: str, unit: Unit | None = None) -> tuple[float, ...]:
    """Read quantities separated by commas; no quantities from an empty text.

    Raises:
        InputError: Where a comma might also be part of a number, as in ``1,5B`` and ``1,000,000``.
    """
    return tuple(parse_quantity(item, what, unit) for item in split_list(text, what))


def split_list(text: str, what: str) -> list[str]:
    """Split a text at its commas; no items from an empty text.

    Raises:
        InputError: Where a comma might also be part of a number, as in ``1,5B`` and ``1,000,000``.
    """
    items = text.split(",") if text.strip() else []
    if len(items) > 2 and _PLAIN.fullmatch(_stripped(text)):
        raise InputError(
            f"{what}: {text!r} is one number, or {len(items)}; write {text.replace(',', '')} or "
            f"{text.replace(',', ', ')}"
        )
    for left, right in pairwise(items):
        check_comma(left, right, what)
    return items


def check_comma(left: str, right: str, what: str) -> None:
    """Refuse neighbors in a list, such as 1 and 5B in ``1,5B``, whose comma may be a decimal comma.

    Raises:
        InputError: With both ways to write it.
    """
    if re.fullmatch(r"[+-]?[0-9]+", left.strip()) and re.match(r"[0-9]+ *[a-zA-Z]|[0-9]{3}\.", right):
        raise InputError(
            f"{what}: {left.strip()},{right} is one number, or two; write {left.strip()}.{right}, or "
            f"'{left.strip()}, {right}' with a space between two items"
        )


def _as_float(value: SupportsFloat, what: str) -> float:
    try:
        if not isinstance(value, bool | bytes | bytearray):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{what}: cannot read {value!r:.60} as a quantity; write 1e21, 143M, 1.5B or 300e6")


def _read(text: str, what: str, unit: Unit | None) -> float:
    first, bracket, again = _stripped(text).partition(" (")
    number = _quantity(first, text, what, unit)
    if bracket:
        restated = _quantity(again.removesuffix(")"), text, what, unit) if again.endswith(")") else math.nan
        if not math.isclose(number, restated, rel_tol=_RESTATED):
            raise InputError(f"{what}: cannot read {text!r} as a quantity; write one number, such as {first}")
    return number


def _quantity(part: str, text: str, what: str, unit: Unit | None) -> float:
    match = _QUANTITY.fullmatch(part)
    word = match["unit"].lower() if match else ""
    scales = SCALES | FLOP_SCALES if word.startswith("flop") else SCALES
    if match is None or match["scale"].lower() not in scales:
        raise InputError(f"{what}: cannot read {text!r} as a quantity; {_advice(text)}")
    if word and unit is not None and not _fits(word, unit):
        raise InputError(f"{what}: {text!r} is in {match['unit']}; this takes {unit or 'a bare number'}")
    return _scaled(match, scales[match["scale"].lower()])


def _fits(word: str, unit: Unit) -> bool:
    allowed = {"FLOP/s": ("flop",), "FLOPs": ("flop", "flops"), "params": ("param",), "tokens": ("token",)}
    return word.startswith(allowed.get(unit, ("none",))) and (unit == "FLOP/s" or not word.endswith("/s"))


def _scaled(match: re.Match[str], power: int) -> float:
    """The number, rounded once: ``1.1B`` is exactly ``1.1e9``."""
    digits = match["number"].replace(",", "").replace("_", "")
    return float(f"{digits}e{int(match['exponent'] or 0) + power}")


def _stripped(text: str) -> str:
    return text.translate(_SPACES).strip(" ")


def _advice(text: str, examples: str = "1e21, 143M, 1.5B or 300e6") -> str:
    """Return how to write what ``text`` may mean."""
    plain = _stripped(text)
    foreign = next((each for each in plain if not each.isascii()), None)
    if foreign:
        name = unicodedata.name(foreign, "an unnamed character")
        advice = f"it holds {name} (U+{ord(foreign):04X}); write plain digits, signs and letters"
    elif re.fullmatch(r"[+-]?[0-9]+,[0-9]+.*", plain):
        grouped = re.match(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}(?![0-9])", plain)
        thousands = f"{plain.replace(',', '')} for thousands" if grouped else ""
        decimal = "" if "." in plain else f"{plain.replace(',', '.', 1)} for a decimal"
        advice = f"its comma is ambiguous: write {', or '.join(filter(None, (decimal, thousands)))}"
    elif power := re.fullmatch(r"(?:([0-9.]+) *[x*] *)?10(?:\^|\*\*)([+-]?[0-9]+)", plain):
        advice = f"a power of ten is written {power[1] or 1}e{power[2]}"
    elif re.match(r"[+-]?0[0-9]", plain):
        advice = f"leading zeros mean octal elsewhere: write {plain.lstrip('+-0') or 0}"
    elif ":" in plain:
        advice = "a ratio such as 20:1 is taken only for tokens per parameter"
    else:
        advice = f"write {examples}"
    return f"{advice} ({GRAMMAR})"


def unit_of(name: str) -> Unit:
    """Return the unit of a variable by its name, as in ``teacher_params`` and ``student_unique_tokens``."""
    last = "" if "_per_" in name else name.rpartition("_")[2]
    return {
        "params": "params",
        "family": "params",
        "tokens": "tokens",
        "budget": "FLOPs",
        "flops": "FLOPs",
    }.get(last, "")  # type: ignore[return-value]


def check_params(value: float, what: str) -> None:
    """Refuse sizes that no model has, such as 7 for 7B."""
    low, high = MODEL_SIZES
    if not low <= value <= high:
        raise InputError(
            f"{what}: {format_power(value)} parameters is no size of a model (from {low:g} to "
            f"{format_power(high)}); write 7B for 7e9"
        )


def format_number(value: float, digits: int = 3) -> str:
    """Return ``value`` to ``digits`` figures with K, M, B or T: ``1.46B``, ``28B``, ``3.2e+20``."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or not 1e3 <= abs(rounded) < 1e15:
        return f"{rounded:.{max(digits, 6)}g}"
    suffix, power = next((k.upper(), p) for k, p in reversed(SCALES.items()) if abs(rounded) >= 10.0**p)
    return f"{rounded / 10.0**power:.{max(digits, 3)}g}{suffix}"


def format_times(factor: float) -> str:
    """Return a factor to 2 significant figures: ``10x``, ``130,000x``, or ``more than 1,000,000x``."""
    if factor >= MOST_TIMES:
        return f"more than {MOST_TIMES:,.0f}x"
    return f"{float(f'{factor:.2g}'):,g}x"


def format_quantity(value: float, unit: str = "") -> str:
    """Return ``value`` for a person: ``1.4B params``, ``28B tokens``, ``3.2e20 FLOPs (0.32 ZFLOP)``."""
    if unit == "FLOPs":
        return format_flops(value)
    return f"{format_number(value)} {unit}".rstrip()


def format_power(value: float, digits: int = 3) -> str:
    """Return ``value`` to ``digits`` significant figures in powers of ten: ``3.2e20``."""
    if not math.isfinite(value):
        return str(value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if abs(value) >= 1e3 else f"{value:.{digits}g}"


def format_flops(value: float) -> str:
    """Return FLOPs in powers of ten and with the nearest large prefix: ``3.2e20 FLOPs (0.32 ZFLOP)``."""
    if not (math.isfinite(value) and value > 0):
        return f"{value:g} FLOPs"
    power = format_power(value)
    if value >= 1e24:
        return f"{power} FLOPs ({value / 1e24:.3g} YFLOP)" if value < 1e27 else f"{power} FLOPs"
    for scale, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if value >= 0.1 * scale:
            return f"{power} FLOPs ({value / scale:.3g} {prefix}FLOP)"
    return f"{power} FLOPs"
