"""What a scaling law says and what follows from it. Needs NumPy and SciPy only."""

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
    "Derivatives",
    "DistillationLaw",
    "EffectiveTokensLaw",
    "IdentifiableLaw",
    "InputError",
    "PublishedLaw",
    "SupervisedLaw",
]
