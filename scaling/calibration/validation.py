"""Checks of a calibration's file: its format, coefficients, weights and architecture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from scaling.calibration.parsing import mapping, read
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import COUNTED, UNRECORDED
from scaling.errors import InputError

FORMAT = "distlaw-calibration"
FORMAT_VERSION = 3
"""2 adds ``misfit``, 3 ``supervised_law``, ``size`` and ``active_share``; a file without is written as 1."""
SIZES = ("", "active", "total")
UNITS = {"params": "non-embedding parameters", "tokens": "tokens", "loss": "nats/token", "compute": "FLOPs"}
ANY_SIGN, MAY_VANISH = ("c0",), ("E", "eps")
"""Coefficients that need not be positive."""

WEIGHT_TOLERANCE = 1e-6
"""Tolerance of the sum of the laws' weights around 1."""


def check_format(content: object, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'{where}: not a calibration; its "format" should be "{FORMAT}"')
    version = content.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise InputError(
            f"{where}: format_version is {version!r}; this version of distlaw reads up to {FORMAT_VERSION}"
        )
    if content.get("units", UNITS) != UNITS:
        raise InputError(f"{where}: units are {content['units']}; they must be {UNITS}")
    return content


def read_architecture(content: Mapping[str, Any], where: str) -> Architecture:
    """Return the architecture with its origins, which files of distlaw 0.1.0 do not record."""
    numbers = mapping(content.get("architecture", {}), f"{where}: architecture")
    origins = mapping(
        content.get("architecture_origins", dict.fromkeys(COUNTED, UNRECORDED)),
        f"{where}: architecture_origins",
    )
    for name, origin in origins.items():
        if name not in COUNTED or not isinstance(origin, str):
            raise InputError(
                f"{where}: architecture_origins.{name}: must be a text for one of {', '.join(COUNTED)}, "
                f"not {origin!r}"
            )
    return read(Architecture, {**numbers, "origins": origins}, f"{where}: architecture")


def write_architecture(architecture: Architecture) -> dict[str, Any]:
    """Return the numbers of an architecture, without origins; the active share if it is not 1."""
    numbers = {name: value for name, value in asdict(architecture).items() if name != "origins"}
    if architecture.active_share == 1.0:
        del numbers["active_share"]
    return numbers


def read_size(content: Mapping[str, Any], where: str) -> str:
    """Return what sizes count: active or total parameters, or an empty text for dense models."""
    size = content.get("size", "")
    if size not in SIZES:
        raise InputError(f"{where}: size: must be one of {', '.join(SIZES[1:])}, or absent, not {size!r}")
    return str(size)


def check_coefficients(where: str, values: Mapping[str, Any], any_sign: Collection[str] = ()) -> None:
    """Check that a law's coefficients are positive; some may be zero, and some have any sign."""
    for key, value in values.items():
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            numbers = np.array(np.nan)
        if not np.all(np.isfinite(numbers)):
            raise InputError(f"{where}.{key}: must be finite numbers, not {value!r}")
        lowest = float(numbers.min(initial=np.inf))
        if key not in (*ANY_SIGN, *any_sign) and (lowest < 0 or (lowest == 0 and key not in MAY_VANISH)):
            raise InputError(f"{where}.{key}: must be positive, not {lowest:g}")


def check_weights(where: str, weights: Mapping[str, float], kinds: Collection[str]) -> None:
    """Check that there is one weight a kind of law, none negative, summing to 1; or none at all."""
    if not weights:
        return
    if set(weights) != set(kinds):
        raise InputError(f"{where}: law_weights: must be of {', '.join(kinds)}, not of {', '.join(weights)}")
    if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > WEIGHT_TOLERANCE:
        raise InputError(f"{where}: law_weights: must be 0 or more and sum to 1, not {dict(weights)}")
