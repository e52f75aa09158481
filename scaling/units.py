"""Quantities as people write them: ``1e21``, ``143M``, ``1.5B``, ``300e6``, ``28B tokens``, ``20:1``.

``K``, ``M``, ``B``, ``T`` are decimal (1e3, 1e6, 1e9, 1e12); with ``FLOP`` the SI prefixes up to ``Z`` work
too. Rounding happens here, on the way to the screen, and nowhere else.
"""

from __future__ import annotations

import math
import re
from typing import SupportsFloat

from scaling.errors import InputError

SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
FLOP_SCALES = {"g": 1e9, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
"""SI prefixes that mean something only before the word FLOP."""
MODEL_SIZES = 1e3, 1e16
"""Parameters between which laws may be asked at all."""

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
    r"\s*(?P<scale>[kmbtgpezy]?)\s*(?P<unit>flops?|tokens?|param(?:eter)?s?|)"
)


def parse_quantity(value: str | SupportsFloat, what: str) -> float:
    """A positive finite number from ``value``, a number or a text such as ``143M`` or ``1e21 FLOPs``.

    ``what`` names the quantity in the :class:`InputError` raised for anything else.
    """
    try:
        number = _number(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise InputError(f"{what}: cannot read {value!r} as a quantity; write 1e21, 143M, 1.5B or 300e6")
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{what}: must be positive and finite, not {value!r}")
    return number


def _number(text: str) -> float | None:
    match = _QUANTITY.fullmatch(text.strip().lower().replace(",", ""))
    if match is None:
        return None
    scales = SCALES | FLOP_SCALES if match["unit"].startswith("flop") else SCALES
    if match["scale"] not in scales:
        return None
    return float(match["number"]) * scales[match["scale"]]


def check_params(value: float, what: str) -> None:
    """Refuse sizes that no model has, such as 7 for 7B."""
    low, high = MODEL_SIZES
    if not low <= value <= high:
        raise InputError(
            f"{what}: {value:g} parameters is no size of a model (from {low:g} to {high:g}); write 7B for 7e9"
        )


def parse_tokens(value: str | SupportsFloat, params: float, what: str) -> float:
    """Tokens: a quantity, or a ratio such as ``20:1`` meaning 20 tokens for each of ``params``."""
    if isinstance(value, str) and ":" in value:
        tokens, _, per = value.partition(":")
        return params * parse_quantity(tokens, what) / parse_quantity(per, what)
    return parse_quantity(value, what)


def format_number(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant figures, with K, M, B or T: ``1.46B``, ``28B``, ``3.2e+20``."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or not 1e3 <= abs(rounded) < 1e15:
        return f"{rounded:g}"
    scale, suffix = next((s, k.upper()) for k, s in reversed(SCALES.items()) if abs(rounded) >= s)
    return f"{rounded / scale:g}{suffix}"


def format_quantity(value: float, unit: str = "") -> str:
    """``value`` for a person: ``1.4B params``, ``28B tokens``, ``3.2e20 FLOPs (0.32 ZFLOP)``."""
    if unit == "FLOPs":
        return format_flops(value)
    return f"{format_number(value)} {unit}".rstrip()


def format_power(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant figures in powers of ten: ``3.2e20``."""
    if not math.isfinite(value):
        return str(value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if abs(value) >= 1e3 else f"{value:.{digits}g}"


def format_flops(value: float) -> str:
    """FLOPs in powers of ten and with the nearest large prefix: ``3.2e20 FLOPs (0.32 ZFLOP)``."""
    if not (math.isfinite(value) and value > 0):
        return f"{value:g} FLOPs"
    power = format_power(value)
    for scale, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if value >= 0.1 * scale:
            return f"{power} FLOPs ({value / scale:.3g} {prefix}FLOP)"
    return f"{power} FLOPs"
