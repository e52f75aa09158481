"""Scaling laws, their calibrations, and the plans that follow from them. Needs NumPy only."""

from scaling.calibration.calibration import LAWS, Calibration, published
from scaling.calibration.provenance import Provenance
from scaling.calibration.region import Region
from scaling.costs.flops import Architecture, ModelShape
from scaling.costs.hardware import Hardware, hardware
from scaling.costs.scenarios import SCENARIOS, Scenario
from scaling.errors import InputError, MissingExtra
from scaling.frontiers.frontier import Frontier, frontier
from scaling.laws import (
    Derivatives,
    DistillationLaw,
    EffectiveTokensLaw,
    PublishedLaw,
    PublishedLaw9,
    SupervisedLaw,
)
from scaling.planner.plan import Estimate, Plan
from scaling.planner.planner import plan
from scaling.planner.prediction import Prediction, predict
from scaling.planner.question import Question
from scaling.planner.teacher_catalogue import KnownTeacher, read_catalogue

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
    "InputError",
    "KnownTeacher",
    "MissingExtra",
    "ModelShape",
    "Plan",
    "Prediction",
    "Provenance",
    "PublishedLaw",
    "PublishedLaw9",
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
