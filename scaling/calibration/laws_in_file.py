"""The laws of a calibration's file: read by name, and refused in a sentence where one is not registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.calibration.parsing import mapping, read, read_numbers
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw, coefficients
from scaling.laws.registry import (
    LAWS,
    POWER_LAW,
    SOURCES,
    SUPERVISED_LAWS,
    find_kind,
    supervised_kind,
    unknown_law,
)


def write_laws(supervised: AnySupervisedLaw, distillation: Mapping[str, DistillationLaw]) -> dict[str, Any]:
    """Return the laws as plain values for JSON; the kind of the supervised law if it is no power law."""
    kind = supervised_kind(supervised)
    sources = {each: SOURCES[each] for each in (kind, *distillation) if each in SOURCES}
    return {
        **({} if kind == POWER_LAW else {"supervised_law": kind}),
        **({"law_sources": sources} if sources else {}),
        "supervised": _numbers(supervised),
        "distillation": {kind: _numbers(law) for kind, law in distillation.items()},
    }


def read_laws(content: Mapping[str, Any], where: str) -> tuple[AnySupervisedLaw, dict[str, DistillationLaw]]:
    """Return the laws of a file; a law of the user's own must have been registered.

    Nothing that a file names is imported: only the environment variable ``DISTLAW_LAWS`` is obeyed.
    """
    sources = mapping(content.get("law_sources", {}), f"{where}: law_sources")
    kind = content.get("supervised_law", POWER_LAW)
    if not isinstance(kind, str):
        raise InputError(f"{where}: supervised_law: must name a law, not {kind!r}")
    if not find_kind(kind, SUPERVISED_LAWS):
        raise InputError(
            f"{where}: supervised_law: {unknown_law(kind, SUPERVISED_LAWS, _source(sources, kind))}"
        )
    numbers = read_numbers(content.get("supervised"), f"{where}: supervised")
    supervised = read(SUPERVISED_LAWS[kind], numbers, f"{where}: supervised")
    distillation = {}
    for name, values in mapping(content.get("distillation"), f"{where}: distillation").items():
        if not find_kind(name, LAWS):
            raise InputError(f"{where}: distillation: {unknown_law(name, LAWS, _source(sources, name))}")
        at = f"{where}: distillation.{name}"
        distillation[name] = read(LAWS[name], read_numbers(values, at), at)
    return supervised, distillation


def signed(law: AnySupervisedLaw | DistillationLaw) -> tuple[str, ...]:
    """Return the coefficients of a law that may be negative."""
    return tuple(getattr(law, "signed", ()))


def _source(sources: Mapping[str, Any], kind: str) -> str:
    source = sources.get(kind, "")
    return source if isinstance(source, str) and len(source) < 200 and source.isprintable() else ""


def _numbers(law: AnySupervisedLaw | DistillationLaw) -> dict[str, float]:
    return {key: float(value) for key, value in coefficients(law).items()}
