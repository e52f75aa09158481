"""A sibling's law as a prior: the supervised law of another corpus, carried over by three numbers.

Laws of one code, block and ladder on two corpora differ by little. With the sibling's law
L_s = E_s + f_s(N, D), the law of the new corpus is ::

    L = E_s e^v0 + exp(v1 + e^v2 ln f_s(N, D))

which is again a power law: E' = E_s e^v0, gamma' = e^v2 gamma_s, A' = A_s e^(v1/gamma'),
B' = B_s e^(v1/gamma'), alpha and beta unchanged. Widths of the priors are 1.5 times the root mean square of v
over 18 ordered pairs of corpora in four public families of sweeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fits.estimation.laws.parametrization import Array, Coordinate, Prior
from scaling.calibration.calibration import Calibration, as_calibration, published
from scaling.costs.flops_assumptions import GIVEN, TABLE
from scaling.errors import InputError
from scaling.laws import EffectiveTokensLaw, Partials, SupervisedLaw
from scaling.laws.registry import POWER_LAW, supervised_kind

WIDTHS = (0.24, 0.20, 0.10)
"""Standard deviations of v0, v1 and v2 before any run."""
SHIPPED = "distlaw2026-{}"
"""Name of the calibration of a sweep that ships, by the name of the sweep."""
TRANSFER = {"k": Prior(np.log(1.1), 0.35), "q": Prior(np.log(8.5), 0.35), "eps": Prior(np.log(0.012), 0.9)}
"""Priors of ln k, ln q and ln eps from sweeps of 7e3 to 8e9 parameters; a sibling's own values replace the
centers."""
RECORDED = (TABLE, GIVEN)
"""Origins of a vocabulary that is known, not assumed."""
TRANSFERRED = {f"ln {name}": prior for name, prior in TRANSFER.items()}
"""Priors of ``TRANSFER`` by the name of the coordinate."""
FARTHEST = 10.0
"""Factor beyond the sibling's largest compute above which its law is of no use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sibling:
    """Laws of another corpus on the same code, block and ladder, as a prior.

    >>> from fits.estimation.laws.sibling import Sibling
    >>> sibling = Sibling.of("permissive")
    >>> sibling.name, f"{sibling.largest_compute:.1e} FLOPs", round(sibling.law.E, 3)
    ('distlaw2026-permissive', '2.0e+13 FLOPs', 1.463)
    """

    name: str
    law: SupervisedLaw
    largest_compute: float
    """Largest 6 N D of the supervised runs that the law was fitted to, FLOPs."""
    distillation: EffectiveTokensLaw | None = None
    """Distillation law of the sibling, whose constants center the priors of the new ones."""
    corpus: str = ""
    tokenizer: str = ""
    vocab: float | None = None
    """Vocabulary, where the calibration's architecture states it."""
    widths: tuple[float, float, float] = WIDTHS

    @classmethod
    def of(cls, source: Calibration | Sibling | str) -> Sibling:
        """Return the sibling of a calibration, of the file of one, or of a sweep that ships.

        Args:
            source: A calibration, its file, its published name, or the name of a sweep such as "permissive".

        Raises:
            InputError: for a calibration that is not found, or whose supervised law is no power law.
        """
        if isinstance(source, Sibling):
            return source
        shipped = SHIPPED.format(source) if isinstance(source, str) else ""
        calibration = as_calibration(shipped if shipped in published() else source)
        if (kind := supervised_kind(calibration.supervised)) != POWER_LAW:
            raise InputError(f"prior {calibration.name}: its supervised law is {kind}; a power law is needed")
        assert isinstance(calibration.supervised, SupervisedLaw)
        own = calibration.distillation.get("effective-tokens")
        architecture = calibration.architecture
        return cls(
            name=calibration.name,
            law=calibration.supervised,
            largest_compute=_largest_compute(calibration),
            distillation=own if isinstance(own, EffectiveTokensLaw) else None,
            corpus=calibration.provenance.corpus,
            tokenizer=calibration.provenance.tokenizer,
            vocab=architecture.vocab if architecture.origins.get("vocab", "").startswith(RECORDED) else None,
        )

    def priors(self) -> dict[str, Prior]:
        """Return the priors of the coordinates of the effective-tokens law, by name."""
        own: Mapping[str, float] = {} if self.distillation is None else _constants(self.distillation)
        return {
            f"ln {name}": Prior(float(np.log(own[name])) if name in own else float(prior.center), prior.sd)
            for name, prior in TRANSFER.items()
        }

    def refuse_other_vocabulary(self, vocab: float, of: str) -> None:
        """Refuse losses of another vocabulary than that of ``of`` ("the sweep"): they do not compare.

        Raises:
            InputError: naming both vocabularies.
        """
        if self.vocab and self.vocab != vocab:
            raise self.other_tokens("a vocabulary", self.vocab, of, f"{vocab:g}")

    def other_tokens(self, what: str, own: object, of: str, found: str) -> InputError:
        """Return the error of a law whose losses are of other tokens."""
        return InputError(
            f"prior {self.name}: its losses are of {what} of {own}, and {of}'s of {found}; "
            "nats/token of different tokens cannot be compared, so it is no sibling"
        )

    def covers(self, compute: float) -> str:
        """Return "yes", "beyond" or "no": whether the law is of use at this compute (6 N D, FLOPs)."""
        if compute <= self.largest_compute * (1 + 1e-9):
            return "yes"
        return "beyond" if compute <= FARTHEST * self.largest_compute else "no"


class SiblingCoordinates:
    """Coordinates (v0, v1, v2) of a supervised law that is the sibling's, mapped."""

    names: ClassVar[tuple[str, ...]] = ("E", "A", "B", "alpha", "beta", "gamma")

    def __init__(self, sibling: Sibling, lowest_loss: float) -> None:
        self.source = sibling.law
        room = max(float(np.log(0.999 * lowest_loss / self.source.E)), -4.0)
        bounds = ((-5.0, room), (-8.0, 8.0), (-1.5, 1.5))
        self.space: tuple[Coordinate, ...] = tuple(
            Coordinate(name=name, lower=low, upper=high, prior=0.0, prior_sd=width, held_by_prior=True)
            for name, width, (low, high) in zip(
                ("ln E/E_sibling", "ln excess factor", "ln excess power"), sibling.widths, bounds, strict=True
            )
        )

    def law(self, theta: Array) -> SupervisedLaw:
        """Return the law at ``theta`` (..., 3); its coefficients have shape (..., 1)."""
        v0, v1, v2 = np.moveaxis(theta[..., None], -2, 0)
        source, gamma = self.source, np.exp(v2) * self.source.gamma
        factor = np.exp(v1 / gamma)
        unchanged = {"alpha": source.alpha + 0.0 * v0, "beta": source.beta + 0.0 * v0}
        return SupervisedLaw(
            E=source.E * np.exp(v0), A=source.A * factor, B=source.B * factor, gamma=gamma, **unchanged
        )

    def theta(self, law: SupervisedLaw) -> Array:
        """Return the coordinates (3,) of a mapped law; (draws, 3) where coefficients have shape (draws,)."""
        v0, v2 = np.log(law.E / self.source.E), np.log(law.gamma / self.source.gamma)
        v1 = law.gamma * np.log(law.A / self.source.A)
        return np.stack(np.broadcast_arrays(v0, v1, v2), axis=-1)

    def columns(self, law: SupervisedLaw, by: Partials) -> list[Array]:
        """Return d loss / d v, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        by_factor = (by["A"] + by["B"]) / law.gamma
        v1 = law.gamma * np.log(law.A / self.source.A)
        return [by["E"], by_factor, by["gamma"] - v1 * by_factor]


def _constants(law: EffectiveTokensLaw) -> dict[str, float]:
    return {name: float(np.ravel(getattr(law, name))[0]) for name in TRANSFER}


def _largest_compute(calibration: Calibration) -> float:
    """Return the largest 6 N D of the supervised runs; that of the region's corner if not recorded.

    Raises:
        InputError: for a calibration without a region.
    """
    misfit, region = calibration.misfit.get("supervised"), calibration.region
    if misfit and "compute" in misfit.fitted:
        return 6.0 * misfit.fitted["compute"][1]
    if region.params and region.tokens:
        return 6.0 * region.params[1] * region.tokens[1]
    raise InputError(
        f"prior {calibration.name}: it does not say which sizes and tokens it was fitted to (region), so it "
        "is not known how far its law holds"
    )
