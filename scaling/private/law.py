"""Laws of private text: tokens that a budget releases, and the loss of students that train on them.

A way is one kind of votes with its options, such as hot votes at one temperature. n teachers and a budget of
rho (zCDP) release D_rel = c (n / n_0)^u (rho / rho_0)^w tokens; noise that grows with n would make u = 2 and
w = 1. A student of N parameters ends at L = E + A N^-a + B D_rel^-b on text whose other tokens are the public
model's; with E, B of each way, and A, a, b of all. On public text alone it ends at L = E_public + A N^-a.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.calibration.parsing import mapping, parse, read, read_draws, read_numbers
from scaling.calibration.provenance import Provenance, read_provenance
from scaling.calibration.region import Range
from scaling.errors import InputError
from scaling.laws.supervised import SupervisedLaw

Array = NDArray[np.float64]
FORMAT, FORMAT_VERSION = "distlaw-private-text", 1
DEFAULT_LAW = "private-kjv"
"""Name of the law that ships, fitted to the runs of the preset ``private``."""
RELEASE = ("c", "u", "w")
"""Coefficients of the released tokens of a way."""
LOSS = ("E", "B")
"""Coefficients of the loss of a way."""
SHARED = ("A", "alpha", "beta", "E_public")
"""Coefficients of the loss that all ways share, and the limit on public text alone."""
VARIABLES = ("teachers", "rho", "released_tokens", "student_params")
"""Variables of the region."""
_PUBLISHED = Path(__file__).with_name("published")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrivateTextLaw:
    """Coefficients, draws of them, and the region that they were fitted on.

    >>> from scaling import PrivateTextLaw
    >>> law = PrivateTextLaw.load("private-kjv")
    >>> law.ways[0], law.unit_tokens > 2
    ('hot', True)
    """

    name: str
    coefficients: Mapping[str, Mapping[str, float]]
    """Coefficients by way, and those of ``shared``."""
    draws: Mapping[str, Mapping[str, Array]] = field(repr=False)
    """Draws of them, ``(draws,)`` each; row i of all is one draw."""
    released_sd: Mapping[str, float]
    """Scatter of ln D_rel around its law, by way."""
    loss_sd: float
    """Scatter of a run's loss around its law, nats/token."""
    region: Mapping[str, Range]
    """Smallest and largest value of each of :data:`VARIABLES`."""
    teachers_0: float
    """n_0, middle of the fitted numbers of teachers."""
    rho_0: float
    """rho_0, middle of the fitted budgets."""
    private_tokens: float
    """Tokens of the private text, all shards together."""
    student_tokens: float
    """Tokens that each student was trained on, of a text that may be shorter."""
    delta: float
    """Probability of failure in the fitted runs."""
    mechanism: str
    """Mechanism of release, in words."""
    provenance: Provenance

    def __post_init__(self) -> None:
        for kind, columns in {"coefficients": self.coefficients, "draws": self.draws}.items():
            for way, found in columns.items():
                names = SHARED if way == "shared" else (*RELEASE, *LOSS)
                if set(found) != set(names):
                    raise InputError(
                        f"law {self.name}: {kind} of {way}: must be {', '.join(names)}, not "
                        f"{', '.join(found)}"
                    )
        if "shared" not in self.coefficients or not self.ways or set(self.draws) != set(self.coefficients):
            raise InputError(f"law {self.name}: needs coefficients and draws of ways, and of what they share")
        if len({len(values) for found in self.draws.values() for values in found.values()}) != 1:
            raise InputError(f"law {self.name}: draws differ in length")
        if set(self.released_sd) != set(self.ways) or set(self.region) != set(VARIABLES):
            raise InputError(f"law {self.name}: released_sd needs every way, region {', '.join(VARIABLES)}")

    @property
    def ways(self) -> tuple[str, ...]:
        """Ways to vote, hot votes first."""
        return tuple(way for way in self.coefficients if way != "shared")

    @property
    def unit_tokens(self) -> float:
        """Tokens of the largest shard that was fitted, at the smallest number of teachers."""
        return self.private_tokens / self.region["teachers"][0]

    def released(self, way: str, teachers: ArrayLike, rho: ArrayLike, *, sampled: bool = False) -> Array:
        """Return the tokens that ``teachers`` release for ``rho`` (zCDP).

        Args:
            way: One of :attr:`ways`.
            teachers: Number of teachers, n.
            rho: Budget in zCDP.
            sampled: Return one value a draw, ``(draws,)``, in place of the best.
        """
        own = (self.draws if sampled else self.coefficients)[way]
        n, budget = np.log(np.divide(teachers, self.teachers_0)), np.log(np.divide(rho, self.rho_0))
        return np.asarray(np.exp(np.log(own["c"]) + own["u"] * n + own["w"] * budget), np.float64)

    def loss(self, way: str, params: float, released: ArrayLike, *, sampled: bool = False) -> Array:
        """Return the loss of a student of ``params`` on text with ``released`` tokens, nats/token."""
        table = self.draws if sampled else self.coefficients
        own, shared = table[way], table["shared"]
        law = SupervisedLaw(E=own["E"], A=shared["A"], alpha=shared["alpha"], B=own["B"], beta=shared["beta"])
        return law.loss(params, released)

    def public_loss(self, params: float, *, sampled: bool = False) -> Array:
        """Return the loss of a student of ``params`` on text of the public model alone, nats/token."""
        shared = (self.draws if sampled else self.coefficients)["shared"]
        return np.asarray(shared["E_public"] + shared["A"] * params ** -shared["alpha"], np.float64)

    def outside(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the factor by which each value lies outside the fitted runs; 1 is inside."""
        ranges = {name: self.region[name] for name in values}
        return {
            name: max(low / values[name], values[name] / high, 1.0) for name, (low, high) in ranges.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the content of its file."""
        own = {name: getattr(self, name) for name in _NUMBERS}
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "mechanism": self.mechanism,
            **own,
            "coefficients": {way: dict(found) for way, found in self.coefficients.items()},
            "released_sd": dict(self.released_sd),
            "region": {name: list(ends) for name, ends in self.region.items()},
            "provenance": asdict(self.provenance),
            "draws": {
                way: {name: values.tolist() for name, values in found.items()}
                for way, found in self.draws.items()
            },
        }

    def save(self, path: str | Path) -> None:
        """Write the law as JSON; it is read with :meth:`load`."""
        content = self.to_dict()
        draws = json.dumps(content.pop("draws"), allow_nan=False)  # on one line
        head = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        Path(path).write_text(f'{head[:-2]},\n "draws": {draws}\n}}\n', encoding="utf-8")

    @classmethod
    def load(cls, source: str | Path) -> PrivateTextLaw:
        """Return the law that ships under this name, or that of a file.

        Raises:
            InputError: If there is none, or its file is damaged.
        """
        shipped = _PUBLISHED / f"{source}.json"
        return _read(shipped if shipped.is_file() else Path(source))


_NUMBERS = ("loss_sd", "teachers_0", "rho_0", "private_tokens", "student_tokens", "delta")


@lru_cache(maxsize=8)
def _read(path: Path) -> PrivateTextLaw:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(each.stem for each in _PUBLISHED.glob("*.json")))
        raise InputError(f"{path}: no law of private text: {error}; those that ship: {names}") from None
    content = mapping(parse(text, str(path)), str(path))
    if content.pop("format", None) != FORMAT:
        raise InputError(
            f'{path}: not a law of private text, whose "format" is "{FORMAT}"; '
            "fits.private_text_law makes one"
        )
    if (version := content.pop("format_version", None)) != FORMAT_VERSION:
        raise InputError(f"{path}: format_version is {version!r}; this version reads {FORMAT_VERSION}")
    missing = {"coefficients", "draws", "released_sd", "region", "provenance", *_NUMBERS} - set(content)
    if missing:
        raise InputError(f"{path}: {', '.join(sorted(missing))} is missing")
    read_numbers({name: content[name] for name in _NUMBERS}, str(path), least=0.0)
    read_numbers(content["released_sd"], f"{path}: released_sd", least=0.0)
    for way, found in mapping(content["coefficients"], f"{path}: coefficients").items():
        read_numbers(found, f"{path}: coefficients.{way}")
    content["region"] = _read_region(content["region"], f"{path}: region")
    content["draws"] = read_draws(content["draws"], str(path))
    content["provenance"] = read_provenance(content["provenance"], f"{path}: provenance")
    return read(PrivateTextLaw, content, str(path))


def _read_region(value: object, where: str) -> dict[str, Range]:
    found = {}
    for name, ends in mapping(value, where).items():
        if not isinstance(ends, list) or len(ends) != 2:
            raise InputError(f"{where}.{name}: must be [smallest, largest], not {ends!r}")
        low, high = read_numbers(dict(zip("01", ends, strict=True)), f"{where}.{name}", least=0.0).values()
        if not 0 < low <= high:
            raise InputError(f"{where}.{name}: must be [smallest, largest], both positive, not {ends!r}")
        found[name] = (low, high)
    return found
