"""What a scaling law says and what follows from it. Needs NumPy and SciPy only."""

from scaling.calibration import LAWS, Calibration, Provenance, Region, published
from scaling.compute import Architecture, ModelShape
from scaling.errors import InputError
from scaling.laws import (
    Derivatives,
    DistillationLaw,
    EffectiveTokensLaw,
    IdentifiableLaw,
    PublishedLaw,
    SupervisedLaw,
)

__all__ = [
    "LAWS",
    "Architecture",
    "Calibration",
    "Derivatives",
    "DistillationLaw",
    "EffectiveTokensLaw",
    "IdentifiableLaw",
    "InputError",
    "ModelShape",
    "Provenance",
    "PublishedLaw",
    "Region",
    "SupervisedLaw",
    "published",
]
