"""A calibration: fitted laws, draws for their uncertainty, the region they were fitted on, provenance.

It is a JSON file of plain numbers at full precision. Published sets ship in ``scaling/published``;
:func:`load` takes the name of one of them or the path of a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from scaling.calibration.parsing import Draws, is_number, mapping, parse, read, read_draws, read_numbers
from scaling.costs.accounting import COUNTED, UNRECORDED
from scaling.costs.flops import Architecture
from scaling.errors import InputError
from scaling.laws import (
    DistillationLaw,
    EffectiveTokensLaw,
    PublishedLaw,
    PublishedLaw9,
    SupervisedLaw,
    coefficients,
)

FORMAT = "distlaw-calibration"
FORMAT_VERSION = 1
UNITS = {"params": "non-embedding parameters", "tokens": "tokens", "loss": "nats/token", "compute": "FLOPs"}
SUPERVISED = "supervised"
"""The key of the supervised law among draws and residuals, beside the kinds of distillation laws."""

LAWS: dict[str, Callable[..., DistillationLaw]] = {
    "effective-tokens": partial(EffectiveTokensLaw, variant="simple"),
    "effective-tokens-capacity": partial(EffectiveTokensLaw, variant="capacity"),
    "effective-tokens-sharp": partial(EffectiveTokensLaw, variant="sharp"),
    "published": PublishedLaw,
    "published-7": PublishedLaw,
    "published-9": PublishedLaw9,
}
"""Distillation laws by kind; ``published`` has 8 coefficients, ``published-7`` the same with gamma = 1."""

ANY_SIGN, MAY_VANISH = ("c0",), ("E", "eps")
"""Coefficients that need not be positive."""

DEFAULT_CALIBRATION = "busbridge2025-figure1-runs"
_PUBLISHED = Path(__file__).with_name("published")

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """The smallest and largest value of each variable among the fitted runs; ``None`` where unknown."""

    params: Range | None = None
    """Supervised runs: non-embedding parameters."""
    tokens: Range | None = None
    """Supervised runs: tokens."""
    student_params: Range | None = None
    """Distillations: non-embedding parameters of the students; likewise below."""
    student_tokens: Range | None = None
    teacher_params: Range | None = None
    teacher_tokens: Range | None = None
    teacher_loss: Range | None = None
    """L_T, nats/token."""
    teacher_loss_ratio: Range | None = None
    """L_T/Ls: the teacher's loss over what the student reaches alone on the same tokens."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """How many runs were fitted, by kind: ``supervised``, ``distillation``."""

    def outside(self, values: Mapping[str, float], *, teacher_predicted: bool = False) -> dict[str, float]:
        """By how many times each value lies outside its range; 1 is inside, unknown ranges are left out.

        A teacher whose loss is predicted by the supervised law must also lie within that law's runs.
        """
        factors = {}
        for name, value in values.items():
            ranges = [getattr(self, name)]
            if teacher_predicted and name in ("teacher_params", "teacher_tokens"):
                ranges.append(getattr(self, name.removeprefix("teacher_")))
            known = [max(low / value, value / high, 1.0) for low, high in filter(None, ranges)]
            if known:
                factors[name] = max(known)
        return factors

    def teachers(self) -> dict[str, Range]:
        """Ranges of ``teacher_params`` and ``teacher_tokens`` that the runs cover, where they are known.

        A teacher's loss is predicted by the supervised law, so it must lie within that law's runs as well.
        """
        found = {}
        for name in ("teacher_params", "teacher_tokens"):
            taught, alone = getattr(self, name), getattr(self, name.removeprefix("teacher_"))
            if taught and alone and max(taught[0], alone[0]) <= min(taught[1], alone[1]):
                taught = max(taught[0], alone[0]), min(taught[1], alone[1])
            if taught or alone:
                found[name] = taught or alone
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a calibration comes from, in words that can be printed."""

    source: str
    """A citation, or the table that was fitted."""
    date: str
    """ISO date of the fit or of the publication."""
    command: str = ""
    """What reproduces it."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Package versions, by name."""
    corpus: str = ""
    tokenizer: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences that every use of the calibration should show."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """A supervised law, distillation laws fitted on top of it, and how far to trust them."""

    name: str
    """How plans call it."""
    supervised: SupervisedLaw
    distillation: Mapping[str, DistillationLaw]
    """By kind (the keys of ``LAWS``); empty for a calibration of supervised training alone."""
    default: str | None = None
    """The kind to use unless asked; the first one if not given."""
    draws: Draws = field(default_factory=dict, repr=False)
    """Coefficients by law (``supervised`` or a kind) and name, shape (draws,); row i of all is one draw."""
    region: Region = field(default_factory=Region)
    law_regions: Mapping[str, Region] = field(default_factory=dict)
    """Narrower ranges within which one kind of law holds; ``None`` are the ranges of ``region``."""
    residual_sd: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of observed minus predicted loss, nats/token, by law (``supervised`` or a kind)."""
    architecture: Architecture = field(default_factory=Architecture)
    """With which its FLOPs are counted."""
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.default is None and self.distillation:
            object.__setattr__(self, "default", next(iter(self.distillation)))
        if self.default is not None:
            self.law(self.default)
        expected: dict[str, SupervisedLaw | DistillationLaw] = {SUPERVISED: self.supervised}
        expected |= self.distillation
        for kind, law in expected.items():
            _check_coefficients(f"calibration {self.name}: {kind}", coefficients(law))
        if not self.draws:
            return
        lengths = set()
        for kind, law in expected.items():
            columns = self.draws.get(kind, {})
            _check_coefficients(f"calibration {self.name}: draws of {kind}", columns)
            if set(columns) != set(coefficients(law)):
                missing = sorted(set(coefficients(law)) ^ set(columns))
                raise InputError(f"calibration {self.name}: draws of {kind}: wrong or missing {missing}")
            lengths |= {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise InputError(f"calibration {self.name}: draws differ in length: {sorted(lengths)}")

    def law(self, kind: str | None = None) -> DistillationLaw:
        """The distillation law of this kind, or the default one."""
        if not self.distillation:
            raise InputError(
                f"calibration {self.name} has a supervised law only; it cannot say anything on distillation"
            )
        kind = kind or self.default or ""
        if kind not in self.distillation:
            kinds = ", ".join(self.distillation)
            raise InputError(f"calibration {self.name} has no law {kind!r}; it has {kinds}")
        return self.distillation[kind]

    def trusts(self, kind: str, **values: float) -> bool:
        """Whether these values lie within the narrower region of a law, if it has one."""
        region = self.law_regions.get(kind, Region())
        return max(region.outside(values).values(), default=1.0) == 1.0

    @property
    def draw_count(self) -> int:
        """How many draws there are; 0 where the source gives none."""
        return len(self.draws[SUPERVISED]["E"]) if self.draws else 0

    def sampled_supervised(self) -> SupervisedLaw:
        """The supervised law with coefficients of shape (draws, 1)."""
        return SupervisedLaw(**{name: values[:, None] for name, values in self.draws[SUPERVISED].items()})

    def sampled_law(self, kind: str | None = None) -> DistillationLaw:
        """The distillation law with coefficients of shape (draws, 1), aligned with the supervised one."""
        kind = kind or self.default or ""
        self.law(kind)
        return LAWS[kind](**{name: values[:, None] for name, values in self.draws[kind].items()})

    def _repr_html_(self) -> str:
        from html import escape

        from scaling.reports.plan_text import calibration_text

        return f"<pre>{escape(calibration_text(self))}</pre>"

    def to_json(self) -> str:
        """The file's text; every float in full."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "units": UNITS,
            "supervised": _numbers(coefficients(self.supervised)),
            "distillation": {kind: _numbers(coefficients(law)) for kind, law in self.distillation.items()},
            "default": self.default,
            "residual_sd": dict(self.residual_sd),
            "region": asdict(self.region),
            "law_regions": {kind: asdict(region) for kind, region in self.law_regions.items()},
            "architecture": {k: v for k, v in asdict(self.architecture).items() if k != "origins"},
            "architecture_origins": dict(self.architecture.origins),
            "provenance": asdict(self.provenance),
        }
        head = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        draws = {
            kind: {name: list(map(float, v)) for name, v in law.items()} for kind, law in self.draws.items()
        }
        return f'{head[:-2]},\n "draws": {json.dumps(draws, allow_nan=False)}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "calibration") -> Calibration:
        """Read what :meth:`to_json` wrote; ``where`` names the file in errors."""
        return cls.from_dict(parse(text, where), where)

    @classmethod
    def from_dict(cls, content: object, where: str = "calibration") -> Calibration:
        """The same from its parsed JSON."""
        content = _check_format(content, where)
        supervised = read(
            SupervisedLaw,
            read_numbers(content.get("supervised"), f"{where}: supervised"),
            f"{where}: supervised",
        )
        distillation = {}
        for kind, values in mapping(content.get("distillation"), f"{where}: distillation").items():
            if kind not in LAWS:
                raise InputError(f"{where}: distillation: unknown law {kind!r}; known are {', '.join(LAWS)}")
            distillation[kind] = read(
                LAWS[kind],
                read_numbers(values, f"{where}: distillation.{kind}"),
                f"{where}: distillation.{kind}",
            )
        regions = mapping(content.get("law_regions", {}), f"{where}: law_regions")
        default = content.get("default")
        if not isinstance(default, str | None):
            raise InputError(f"{where}: default: must name a law, not {default!r}")
        return cls(
            name=str(content.get("name", where)),
            supervised=supervised,
            distillation=distillation,
            default=default,
            draws=read_draws(content.get("draws", {}), where),
            region=_read_region(content.get("region", {}), f"{where}: region"),
            law_regions={
                kind: _read_region(region, f"{where}: law_regions.{kind}") for kind, region in regions.items()
            },
            residual_sd=read_numbers(content.get("residual_sd", {}), f"{where}: residual_sd", least=0.0),
            architecture=_read_architecture(content, where),
            provenance=_read_provenance(content.get("provenance"), f"{where}: provenance"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the calibration to ``path`` and return it."""
        path = Path(path)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path_or_name: str | Path) -> Calibration:
        """A calibration from a file, or a published one by its name."""
        if str(path_or_name) in published():
            return _shipped(str(path_or_name))
        path = Path(path_or_name)
        if not path.is_file():
            names = ", ".join(published())
            raise InputError(f"no calibration {str(path_or_name)!r}: neither a file nor one of {names}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as text: {error}") from None
        return cls.from_json(text, path.name)


def named(calibration: Calibration | str | Path) -> Calibration:
    """The calibration itself, or the one of this file or published name."""
    return calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)


def published() -> tuple[str, ...]:
    """Names of the calibrations that ship with the package."""
    return tuple(sorted(path.stem for path in _PUBLISHED.glob("*.json")))


@lru_cache
def _shipped(name: str) -> Calibration:
    return Calibration.from_json((_PUBLISHED / f"{name}.json").read_text(encoding="utf-8"), name)


def _check_format(content: object, where: str) -> dict[str, Any]:
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


def _read_region(value: object, where: str) -> Region:
    ranges = mapping(value, where)
    for name, known in ranges.items():
        if name == "runs":
            read_numbers(known, f"{where}.runs")
        elif known is not None:
            pair = isinstance(known, list) and len(known) == 2 and all(map(is_number, known))
            if not pair or not 0 < known[0] <= known[1]:
                raise InputError(f"{where}.{name}: must be [smallest, largest], both positive, not {known!r}")
    return read(Region, {k: tuple(v) if isinstance(v, list) else v for k, v in ranges.items()}, where)


def _read_architecture(content: Mapping[str, Any], where: str) -> Architecture:
    """The architecture with its origins, which files of distlaw 0.1.0 do not record."""
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


def _read_provenance(value: object, where: str) -> Provenance:
    texts = dict(mapping(value, where))
    for name, text in texts.items():
        if name in ("notes", "warnings"):
            if not isinstance(text, list) or not all(isinstance(each, str) for each in text):
                raise InputError(f"{where}.{name}: must be a list of sentences, not {text!r}")
            texts[name] = tuple(text)
        elif not isinstance(text, dict if name == "software" else str):
            raise InputError(f"{where}.{name}: must be a text, not {text!r}")
    return read(Provenance, texts, where)


def _check_coefficients(where: str, values: Mapping[str, Any]) -> None:
    """Every law's coefficients are positive; some may be zero, and one has any sign."""
    for key, value in values.items():
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            numbers = np.array(np.nan)
        if not np.all(np.isfinite(numbers)):
            raise InputError(f"{where}.{key}: must be finite numbers, not {value!r}")
        lowest = float(numbers.min(initial=np.inf))
        if key not in ANY_SIGN and (lowest < 0 or (lowest == 0 and key not in MAY_VANISH)):
            raise InputError(f"{where}.{key}: must be positive, not {lowest:g}")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}
