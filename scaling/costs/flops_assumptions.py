"""Numbers that FLOPs are counted with: their origins, plausible ranges and effect where assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from scaling.costs.flops import Architecture
from scaling.units import format_number

COUNTED = {"context": "context", "vocab": "vocabulary", "aspect_ratio": "aspect ratio"}
"""Numbers besides N that set the FLOPs of a token, with their names in words."""
GIVEN, TABLE, ASSUMED = "given", "table", "assumed"
UNRECORDED = "not recorded"
"""The origin of numbers in calibration files of distlaw 0.1.0."""
PLAUSIBLE = {"context": (128, 8192), "vocab": (256, 262144), "aspect_ratio": (32.0, 256.0)}
"""Ranges among pretrained decoders: vocabularies from bytes to 256K tokens, and d_model / n_layers where
Kaplan et al. 2020 (arXiv 2001.08361) found the loss to depend on it weakly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounting:
    """Numbers that FLOPs are counted with, and their origins."""

    rule: str
    """``detailed`` or ``6nd``, which takes no account of the others."""
    context: int
    vocab: int
    aspect_ratio: float
    origins: Mapping[str, str]
    """Origin of ``context``, ``vocab`` and ``aspect_ratio``: ``given``, ``table`` (of the runs, maybe with a
    remark), ``assumed``, or ``not recorded``."""
    effect: str = ""
    """Effect of the assumed numbers, in a sentence; empty where none is assumed."""

    def __str__(self) -> str:
        if self.rule == "6nd":
            return "FLOPs are 6ND; attention and vocabulary are not counted"
        values = {name: f"{title} {getattr(self, name):g}" for name, title in COUNTED.items()}
        origins = {name: self._origin(name) for name in COUNTED}
        if len(set(origins.values())) > 1:
            texts = [
                f"{values[name]} ({origin})" if origin else values[name] for name, origin in origins.items()
            ]
            return f"FLOPs follow F(N) with {', '.join(texts)}"
        common = origins["vocab"] and f" (all {origins['vocab']})"
        return f"FLOPs follow F(N) with {', '.join(values.values())}{common}"

    def _origin(self, name: str) -> str:
        origin = self.origins.get(name, "")
        return f"from the {origin}" if origin.startswith(TABLE) else origin


def accounting(architecture: Architecture, fitted: Architecture, effect: str = "") -> Accounting:
    """Return the accounting of ``architecture``, where ``fitted`` is the calibration's own.

    A number that differs from the calibration's, or comes without an origin, was given with the question.
    """
    origins = dict(fitted.origins)
    if architecture is not fitted:
        for name in COUNTED:
            same = getattr(architecture, name) == getattr(fitted, name)
            origins[name] = architecture.origins.get(name, GIVEN) if same else GIVEN
    return Accounting(
        rule=architecture.rule,
        context=architecture.context,
        vocab=architecture.vocab,
        aspect_ratio=architecture.aspect_ratio,
        origins=origins,
        effect=effect,
    )


def with_numbers(architecture: Architecture, origin: str = GIVEN, **numbers: float | None) -> Architecture:
    """Return the architecture with those of the numbers that are not ``None``, and their origin."""
    known = {name: value for name, value in numbers.items() if value is not None}
    origins = {**architecture.origins, **dict.fromkeys(known, origin)}
    whole = {name: int(value) if name in ("context", "vocab") else value for name, value in known.items()}
    return replace(architecture, **whole, origins=origins)  # type: ignore[arg-type]


def assumed_architecture(**numbers: float | None) -> Architecture:
    """Return the default architecture with the given numbers; the others have the origin ``assumed``."""
    return with_numbers(Architecture(origins=dict.fromkeys(COUNTED, ASSUMED)), GIVEN, **numbers)


def knows_vocabulary(architecture: Architecture) -> bool:
    """Return True if the vocabulary was given or measured, not assumed."""
    return not architecture.origins.get("vocab", ASSUMED).startswith(ASSUMED)


def assumed(counted: Accounting) -> tuple[str, ...]:
    """Return names of numbers that nobody gave; also of those that a file of 0.1.0 has at their defaults."""
    if counted.rule == "6nd":
        return ()
    unsaid = Architecture()
    return tuple(
        name
        for name in COUNTED
        if counted.origins.get(name, "").startswith(ASSUMED)
        or (counted.origins.get(name) == UNRECORDED and getattr(counted, name) == getattr(unsaid, name))
    )


def extremes(
    architecture: Architecture, names: Sequence[str], params: float
) -> tuple[Architecture, Architecture]:
    """Return architectures within ``PLAUSIBLE`` whose token costs least and most, for ``params``."""
    sides = [(*PLAUSIBLE[name], getattr(architecture, name)) for name in names]
    corners = [
        with_numbers(architecture, **dict(zip(names, values, strict=True))) for values in product(*sides)
    ]
    corners.sort(key=lambda corner: float(corner.forward_flops(params)))
    return corners[0], corners[-1]


def assumption_text(counted: Accounting, names: Sequence[str]) -> str:
    """Return the assumed numbers and their ranges in words: the beginning of ``effect``."""
    texts = [f"{COUNTED[name]} {getattr(counted, name):g}" for name in names]
    spans = [f"{COUNTED[name]} {PLAUSIBLE[name][0]:g} to {PLAUSIBLE[name][1]:g}" for name in names]
    return f"Assumed for the FLOPs, as nothing says otherwise: {', '.join(texts)}. Over {', '.join(spans)}"


def training_effect(counted: Accounting, architecture: Architecture, params: float) -> str:
    """Return the effect of assumed numbers on the cost of training ``params``; empty if none is assumed."""
    names = assumed(counted)
    if not names:
        return ""
    costs = [float(each.forward_flops(params)) for each in extremes(architecture, names, params)]
    low, high = (cost / float(architecture.forward_flops(params)) for cost in costs)
    return (
        f"{assumption_text(counted, names)}, a token of a {format_number(params)} model costs "
        f"{low:.2g} to {high:.2g} times what is counted here, and the tokens of a plan change inversely."
    )
