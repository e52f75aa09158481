"""What a scaling law says and what follows from it. Needs NumPy and SciPy only."""

from scaling.calibration import LAWS, Calibration, Provenance, Region, published
from scaling.catalogue import KnownTeacher, read_catalogue
from scaling.compute import Architecture, ModelShape
from scaling.errors import InputError, MissingExtra
from scaling.frontier import Frontier, frontier
from scaling.hardware import Hardware, hardware
from scaling.laws import (
    Derivatives,
    DistillationLaw,
    EffectiveTokensLaw,
    IdentifiableLaw,
    PublishedLaw,
    SupervisedLaw,
)
from scaling.planner import plan
from scaling.plans import Estimate, Plan
from scaling.prediction import Prediction, predict
from scaling.question import Question
from scaling.scenarios import SCENARIOS, Scenario

__all__ = [
    "LAWS",
    "SCENARIOS",
    "Architecture",
    "Calibration",
    "Derivatives",
    "DistillationLaw",
    "EffectiveTokensLaw",
    "Estimate",
    "Frontier",
    "Hardware",
    "IdentifiableLaw",
    "InputError",
    "KnownTeacher",
    "MissingExtra",
    "ModelShape",
    "Plan",
    "Prediction",
    "Provenance",
    "PublishedLaw",
    "Question",
    "Region",
    "Scenario",
    "SupervisedLaw",
    "frontier",
    "hardware",
    "plan",
    "predict",
    "published",
    "read_catalogue",
]
