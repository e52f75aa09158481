"""A calibration: fitted laws, draws for their uncertainty, the region they were fitted on, provenance.

It is a JSON file of plain numbers at full precision. Published sets ship in the folder ``published`` beside
this file; :meth:`Calibration.load` takes the name of one of them or the path of a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.calibration.laws_in_file import read_laws, signed, write_laws
from scaling.calibration.misfit import Misfit, read_misfit
from scaling.calibration.parsing import Draws, mapping, parse, read_draws, read_numbers
from scaling.calibration.provenance import Provenance, read_provenance
from scaling.calibration.region import Region, read_region
from scaling.calibration.repetition import read_repetition
from scaling.calibration.validation import (
    FORMAT,
    FORMAT_VERSION,
    UNITS,
    check_coefficients,
    check_format,
    check_weights,
    read_architecture,
    read_size,
    write_architecture,
)
from scaling.costs.flops import Architecture
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw, PublishedLaw, PublishedLaw9, coefficients
from scaling.laws.registry import LAWS, POWER_LAW, check_compatible, supervised_kind
from scaling.repeated_data import REPETITION_CONSTANT, Repetition

if TYPE_CHECKING:
    import pandas

    from scaling.figures.calibration import CalibrationPlots

Array = NDArray[np.float64]
SUPERVISED = "supervised"
"""The key of the supervised law among draws and residuals, beside the kinds of distillation laws."""

BETTER_TEACHER = 0.99
"""A teacher is better than any fitted if its loss is less than this share of the lowest of them."""

DEFAULT_CALIBRATION = "busbridge2025-figure1-runs"
_PUBLISHED = Path(__file__).with_name("published")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """A supervised law, distillation laws fitted on top of it, and how far to trust them.

    >>> from scaling import Calibration
    >>> calibration = Calibration.load("busbridge2025-table6")
    >>> calibration.default, list(calibration.to_frame().columns)
    ('published-9', ['law', 'name', 'value', 'low', 'high'])
    """

    name: str
    """Name in plans."""
    supervised: AnySupervisedLaw
    distillation: Mapping[str, DistillationLaw]
    """Distillation laws by kind (keys of ``LAWS``); empty for a calibration of supervised training alone."""
    default: str | None = None
    """The kind to use unless asked; the first one if not given."""
    draws: Draws = field(default_factory=dict, repr=False)
    """Coefficients by law (``supervised`` or a kind) and name, shape (draws,); row i of all is one draw."""
    region: Region = field(default_factory=Region)
    law_regions: Mapping[str, Region] = field(default_factory=dict)
    """Narrower ranges within which one kind of law holds; ``None`` are the ranges of ``region``."""
    law_weights: Mapping[str, float] = field(default_factory=dict)
    """Evidence for each kind of law, summing to 1: stacking weights from held-out runs, zero where they
    refute a law. Without any, all kinds count the same."""
    repetition: Repetition | None = None
    """Constants of repeated data, where the runs determined them."""
    residual_sd: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of observed minus predicted loss, nats/token, by law (``supervised`` or a kind)."""
    misfit: Mapping[str, Misfit] = field(default_factory=dict)
    """Errors of each law on runs left out of refits. Where that was not measured, intervals rest on
    ``residual_sd``, and are too narrow beyond the fitted runs."""
    architecture: Architecture = field(default_factory=Architecture)
    """Architecture that its FLOPs are counted with."""
    size: str = ""
    """Parameters of a mixture of experts that sizes are: "active" or "total"; empty for dense models."""
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.default is None and self.distillation:
            object.__setattr__(self, "default", next(iter(self.distillation)))
        if self.default is not None:
            self.law(self.default)
        check_compatible(supervised_kind(self.supervised), self.distillation, f"calibration {self.name}: ")
        expected: dict[str, AnySupervisedLaw | DistillationLaw] = {SUPERVISED: self.supervised}
        expected |= self.distillation
        for kind in {kind for misfit in self.misfit.values() for kind in misfit.alternatives} - set(LAWS):
            raise InputError(f"calibration {self.name}: misfit: unknown law {kind!r}")
        for kind, law in expected.items():
            check_coefficients(f"calibration {self.name}: {kind}", coefficients(law), signed(law))
        check_weights(f"calibration {self.name}", self.law_weights, self.distillation)
        if not self.draws:
            return
        lengths = set()
        for kind, law in expected.items():
            columns = self.draws.get(kind, {})
            check_coefficients(f"calibration {self.name}: draws of {kind}", columns, signed(law))
            if set(columns) != set(coefficients(law)):
                missing = sorted(set(coefficients(law)) ^ set(columns))
                raise InputError(f"calibration {self.name}: draws of {kind}: wrong or missing {missing}")
            lengths |= {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise InputError(f"calibration {self.name}: draws differ in length: {sorted(lengths)}")

    def law(self, kind: str | None = None) -> DistillationLaw:
        """Return the distillation law of this kind, or the default one."""
        if not self.distillation:
            raise InputError(f"calibration {self.name} has a supervised law only, and no distillation law")
        kind = kind or self.default or ""
        if kind not in self.distillation:
            kinds = ", ".join(self.distillation)
            raise InputError(f"calibration {self.name} has no law {kind!r}; it has {kinds}")
        return self.distillation[kind]

    def trusts(self, kind: str, **values: float) -> bool:
        """Return whether these values lie within the narrower region of a law, if it has one.

        No published law holds for a teacher that it must be refused for (:meth:`refuses`).
        """
        region = self.law_regions.get(kind)
        inside = region is None or max(region.outside(values).values(), default=1.0) == 1.0
        return inside and not self.refuses(kind, values.get("teacher_loss", np.inf))

    def refuses(self, kind: str, teacher_loss: float) -> bool:
        """Return whether a teacher (nats/token) is too good for a law of this kind to say anything.

        Left out of a fit, the teachers better than all others are missed by a published law by 6 to 12 %.
        """
        fitted, law = self.region.teacher_loss, self.distillation[kind]
        published = isinstance(law, PublishedLaw | PublishedLaw9)
        return published and fitted is not None and teacher_loss < BETTER_TEACHER * fitted[0]

    def votes(self, **values: float) -> dict[str, float]:
        """Return the weights of the kinds of laws that count at these values, summing to 1.

        The laws that hold there count by their weights. Where none of them has a weight, they and the default
        count equally, and where none holds, all do.
        """
        holding = [kind for kind in self.distillation if self.trusts(kind, **values)]
        weights = {kind: self.law_weights.get(kind, 0.0) if self.law_weights else 1.0 for kind in holding}
        total = sum(weights.values())
        if total > 0:
            return {kind: weight / total for kind, weight in weights.items() if weight > 0}
        equal = [kind for kind in self.distillation if not holding or kind in (*holding, self.default)]
        return dict.fromkeys(equal, 1 / len(equal)) if equal else {}

    def run_sd(
        self, kind: str, loss: Array, N: ArrayLike, D: ArrayLike, L_T: ArrayLike | None = None
    ) -> Array:
        """Standard deviation of one run around the law, nats/token, of the shape of ``loss``.

        ``kind`` is "supervised" or a kind of law, ``loss`` (nats/token) what it predicts for ``N`` parameters
        trained on ``D`` tokens, distilled from a teacher of loss ``L_T``.
        """
        if kind not in self.misfit:
            return np.full(np.shape(loss), self.residual_sd.get(kind, 0.0))
        misfit = self.misfit[kind]
        sd = np.asarray(loss * misfit.sd(N, D, L_T))
        if L_T is None or not misfit.alternatives:
            return sd
        others = [
            LAWS[other](**values).loss(N, D, L_T, self.supervised)
            for other, values in misfit.alternatives.items()
        ]
        return np.asarray(np.hypot(sd, np.std([loss, *others], axis=0, ddof=1)))

    @property
    def repetition_constant(self) -> float:
        """R_D* of repeated tokens: fitted, or that of Muennighoff et al. 2023."""
        return REPETITION_CONSTANT if self.repetition is None else self.repetition.tokens

    @property
    def draw_count(self) -> int:
        """Number of draws; 0 where the source gives none."""
        return len(next(iter(self.draws[SUPERVISED].values()))) if self.draws else 0

    def sampled_supervised(self, step: int = 1) -> AnySupervisedLaw:
        """Return the supervised law with coefficients of shape (draws, 1), one draw in ``step`` taken."""
        return type(self.supervised)(**self._columns(SUPERVISED, step))

    def sampled_law(self, kind: str | None = None, step: int = 1) -> DistillationLaw:
        """Return the distillation law with coefficients of shape (draws, 1), of the same draws."""
        kind = kind or self.default or ""
        self.law(kind)
        return LAWS[kind](**self._columns(kind, step))

    def _columns(self, law: str, step: int) -> dict[str, NDArray[np.float64]]:
        return {name: values[::step, None] for name, values in self.draws[law].items()}

    def draw_step(self, most: int) -> int:
        """Return the distance between draws at which about ``most`` of them are taken."""
        return max(1, self.draw_count // most)

    def _repr_html_(self) -> str:
        from html import escape

        from scaling.reports.plan_text import calibration_text

        return f"<pre>{escape(calibration_text(self))}</pre>"

    @property
    def plot(self) -> CalibrationPlots:
        """The figures of this calibration: :mod:`scaling.figures.registry` lists them."""
        from scaling.figures.calibration import CalibrationPlots

        return CalibrationPlots(self)

    def to_frame(self) -> pandas.DataFrame:
        """Return the coefficients as a pandas table, one row each, with 90 % intervals of the draws."""
        import pandas

        laws: dict[str, AnySupervisedLaw | DistillationLaw] = {SUPERVISED: self.supervised}
        laws |= self.distillation
        return pandas.DataFrame(
            [
                {"law": kind, "name": name, "value": float(value), **self._interval(kind, name)}
                for kind, law in laws.items()
                for name, value in coefficients(law).items()
            ]
        )

    def _interval(self, kind: str, name: str) -> dict[str, float]:
        if not self.draws:
            return {"low": np.nan, "high": np.nan}
        low, high = np.quantile(self.draws[kind][name], (0.05, 0.95))
        return {"low": float(low), "high": float(high)}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON, as :meth:`from_dict` reads it."""
        return {
            "format": FORMAT,
            "format_version": self._version(),
            "name": self.name,
            "units": UNITS,
            **write_laws(self.supervised, self.distillation),
            **({"size": self.size} if self.size else {}),
            "default": self.default,
            "law_weights": dict(self.law_weights),
            "residual_sd": dict(self.residual_sd),
            "repetition": self.repetition.to_dict() if self.repetition else None,
            **({"misfit": {kind: asdict(of) for kind, of in self.misfit.items()}} if self.misfit else {}),
            "region": self.region.to_dict(),
            "law_regions": {kind: region.to_dict() for kind, region in self.law_regions.items()},
            "architecture": write_architecture(self.architecture),
            "architecture_origins": dict(self.architecture.origins),
            "provenance": asdict(self.provenance),
            "draws": {
                kind: {name: list(map(float, v)) for name, v in law.items()}
                for kind, law in self.draws.items()
            },
        }

    def _version(self) -> int:
        """Return the oldest version of the format that holds this calibration."""
        if self.size or supervised_kind(self.supervised) != POWER_LAW:
            return FORMAT_VERSION
        return 2 if self.misfit else 1

    def to_json(self) -> str:
        """Return the file's text; every float in full."""
        content = self.to_dict()
        draws = json.dumps(content.pop("draws"), allow_nan=False)
        head = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        return f'{head[:-2]},\n "draws": {draws}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "calibration") -> Calibration:
        """Read the text that :meth:`to_json` writes; ``where`` names the file in errors."""
        return cls.from_dict(parse(text, where), where)

    @classmethod
    def from_dict(cls, content: object, where: str = "calibration") -> Calibration:
        """Read a calibration from its parsed JSON; ``where`` names the file in errors."""
        content = check_format(content, where)
        supervised, distillation = read_laws(content, where)
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
            region=read_region(content.get("region", {}), f"{where}: region"),
            law_regions={
                kind: read_region(region, f"{where}: law_regions.{kind}") for kind, region in regions.items()
            },
            law_weights=read_numbers(content.get("law_weights", {}), f"{where}: law_weights", least=0.0),
            repetition=read_repetition(content.get("repetition"), f"{where}: repetition"),
            residual_sd=read_numbers(content.get("residual_sd", {}), f"{where}: residual_sd", least=0.0),
            misfit={
                kind: read_misfit(of, f"{where}: misfit.{kind}")
                for kind, of in mapping(content.get("misfit", {}), f"{where}: misfit").items()
            },
            architecture=read_architecture(content, where),
            size=read_size(content, where),
            provenance=read_provenance(content.get("provenance"), f"{where}: provenance"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the calibration to ``path`` and return it."""
        path = Path(path)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path_or_name: str | Path) -> Calibration:
        """Load a calibration from a file, or a published one by its name."""
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


def as_calibration(calibration: Calibration | str | Path) -> Calibration:
    """Return the calibration itself, or the one of this file or published name."""
    return calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)


@lru_cache
def published() -> tuple[str, ...]:
    """Return the names of the calibrations that ship with the package.

    >>> from scaling import published
    >>> "busbridge2025-figure1-runs" in published()
    True
    """
    return tuple(sorted(path.stem for path in _PUBLISHED.glob("*.json")))


@lru_cache
def _shipped(name: str) -> Calibration:
    return Calibration.from_json((_PUBLISHED / f"{name}.json").read_text(encoding="utf-8"), name)
