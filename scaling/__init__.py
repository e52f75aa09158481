"""Scaling laws, their calibrations, and the plans that follow from them. Needs NumPy only.

A public name is loaded with its module when it is first used, so that a law is there without the planner.
"""

from typing import TYPE_CHECKING

from scaling.lazy_names import lazy_names

if TYPE_CHECKING:
    from scaling.calibration.calibration import Calibration, published
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
    from scaling.laws.registry import LAWS
    from scaling.planner.plan import Estimate, Plan
    from scaling.planner.planner import plan
    from scaling.planner.prediction import Prediction, predict
    from scaling.planner.question import Question
    from scaling.planner.teacher_catalogue import KnownTeacher, read_catalogue
    from scaling.private.law import PrivateTextLaw
    from scaling.private.plan import PrivatePlan, plan_private

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
    "PrivatePlan",
    "PrivateTextLaw",
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
    "plan_private",
    "predict",
    "published",
    "read_catalogue",
]

_PUBLIC = {
    "calibration.calibration": ("Calibration", "published"),
    "calibration.provenance": ("Provenance",),
    "calibration.region": ("Region",),
    "costs.flops": ("Architecture", "ModelShape"),
    "costs.hardware": ("Hardware", "hardware"),
    "costs.scenarios": ("SCENARIOS", "Scenario"),
    "errors": ("InputError", "MissingExtra"),
    "frontiers.frontier": ("Frontier", "frontier"),
    "laws": (
        "Derivatives",
        "DistillationLaw",
        "EffectiveTokensLaw",
        "PublishedLaw",
        "PublishedLaw9",
        "SupervisedLaw",
    ),
    "laws.registry": ("LAWS",),
    "planner.plan": ("Estimate", "Plan"),
    "planner.planner": ("plan",),
    "planner.prediction": ("Prediction", "predict"),
    "planner.question": ("Question",),
    "planner.teacher_catalogue": ("KnownTeacher", "read_catalogue"),
    "private.law": ("PrivateTextLaw",),
    "private.plan": ("PrivatePlan", "plan_private"),
}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
