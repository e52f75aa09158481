"""Units in column headers: ``tokens (B)``, ``params_millions``, ``C [EFLOP]``, ``val_ppl``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

Scale = Callable[[str], float | None]
"""Function from a canonical column to the factor of its unit; None if it cannot have that unit."""

_COUNTS = {
    1e3: ("k", "thousand", "thousands"),
    1e6: ("m", "mn", "mio", "million", "millions"),
    1e9: ("b", "bn", "g", "billion", "billions"),
    1e12: ("t", "tn", "trillion", "trillions"),
}
_COUNT_OF = {word: scale for scale, words in _COUNTS.items() for word in words}
_SI = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
PF_DAY = 1e15 * 86400
COUNT_COLUMNS = ("params", "tokens", "teacher_params", "teacher_tokens", "unique_tokens")
COMPUTE_COLUMNS = ("compute", "flops")
QUALIFIERS = {
    "params": ("nonembedding", "nonembeddings", "excludingembeddings", "parameters", "params"),
    "tokens": ("tokens", "training", "train", "seen"),
    "loss": (
        "nats",
        "nat",
        "natstoken",
        "natspertoken",
        "val",
        "valid",
        "validation",
        "eval",
        "heldout",
        "test",
    ),
    "teacher_loss": ("nats", "nat", "natstoken", "natspertoken", "val", "validation", "eval", "heldout"),
    "loss_se": ("nats", "natstoken"),
    "compute": ("training", "train"),
    "seconds": ("s",),
}
"""Words in brackets after a name that do not change its meaning."""

LOSS_UNITS = ("nats/token", "bits/token", "bits/byte", "perplexity")
_LOSS_WORDS = {
    "perplexity": r"ppl|pplx|perplexity",
    "bits/byte": r"bpb|bits[ _/-]*(?:per[ _/-]*)?byte|bpc|bits[ _/-]*(?:per[ _/-]*)?char(?:acter)?",
    "bits/token": r"bpt|bits[ _/-]*(?:per[ _/-]*)?token|bits",
}
_LOSS_WORD = {
    unit: re.compile(rf"(?i)(?:^|(?<=[^a-z]))(?:{words})(?![a-z])") for unit, words in _LOSS_WORDS.items()
}

_NATS = re.compile(r"(?i)(?<![a-z])nats?(?:[ _/-]*(?:per[ _/-]*)?tok(?:en)?s?)?\s*$")


def split_unit(header: str) -> Iterator[tuple[str, Scale]]:
    """Yield the ways to read a header as a name and a unit."""
    if bracketed := re.fullmatch(r"(.+?)\s*[(\[](.+)[)\]]", header.strip()):
        yield bracketed[1].strip(), partial(_bracketed_factor, unit=bracketed[2])
    words = re.split(r"[\s_-]+", header.strip())
    for count in (1, 2):
        if len(words) > count:
            suffix = " ".join(words[-count:])
            stem = "_".join(words[:-count])
            yield stem.removesuffix("_in"), partial(_factor, unit=suffix)


def _bracketed_factor(canonical: str, unit: str) -> float | None:
    if (found := _factor(canonical, unit)) is not None:
        return found
    plain = re.sub(r"[^a-z]", "", unit.lower())
    return 1.0 if plain in QUALIFIERS.get(canonical, ()) else None


def _factor(canonical: str, unit: str) -> float | None:
    text = re.sub(r"^(in|x|×|\*)\s*", "", unit.strip().lower())
    scale: float | None = None
    if canonical in COUNT_COLUMNS:
        words = re.sub(r"\s*(of\s+)?(tokens?|params?|parameters?)$", "", text)
        scale = _COUNT_OF.get(words, _power_of_ten(words))
    elif canonical in COMPUTE_COLUMNS:
        if re.fullmatch(r"(pf|pflops?|pflop/s|petaflops?|petaflop/s)[\s_/-]*days?", text):
            scale = PF_DAY
        elif prefixed := re.fullmatch(r"([kmgtpezy]?)flops?", text):
            scale = _SI[prefixed[1]]
        else:
            scale = _power_of_ten(re.sub(r"\s*flops?$", "", text))
    return scale


def _power_of_ten(text: str) -> float | None:
    """Parse a power of ten: ``1e9``, ``10^9``, ``10**9``, ``e9``."""
    found = re.fullmatch(r"(?:1?e|10\^|10\*\*)\+?(\d{1,2})", text)
    return 10.0 ** int(found[1]) if found else None


def loss_unit_of(header: str) -> str | None:
    """Return the unit other than nats/token that a header names for a loss, if any."""
    return next((unit for unit, word in _LOSS_WORD.items() if word.search(header)), None)


def split_loss(cell: str) -> tuple[str, str | None]:
    """Return the number in a cell of a loss and the unit that it names, if any: ``5.24 nats/token``."""
    for unit, word in ({"nats/token": _NATS} | _LOSS_WORD).items():
        bare = word.sub("", cell).strip()
        if bare != cell.strip() and re.fullmatch(r"[-+.,_\d]+(?:e[-+]?\d+)?", bare):
            return bare, unit
    return cell, None


def count_scale(word: str) -> float | None:
    """Return the factor of a word such as ``million``; None for any other."""
    return _COUNT_OF.get(word.lower())


def without_loss_unit(header: str) -> str:
    """Remove the unit from a header, or replace it by "loss": ``val_loss`` for ``val_ppl``."""
    unit = loss_unit_of(header)
    if unit is None:
        return header
    has_loss = re.search(r"(?i)loss|entropy|_se$|stderr", _LOSS_WORD[unit].sub("", header)) is not None
    return _LOSS_WORD[unit].sub("" if has_loss else "loss", header)
