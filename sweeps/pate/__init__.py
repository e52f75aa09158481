"""Private aggregation of teacher ensembles (PATE) over distributions, hot and cold, with its accounting.

The method is Hot PATE (Cohen et al. 2023, arXiv 2312.02132): teachers on disjoint shards of private text
vote on each token with shared randomness, a noisy aggregate is released or refused, and students train on
the released text. NumPy only; nothing here knows of sweeps or neural models. Imports no other room.
"""

from scaling.private.accounting import AttemptCost, PrivacyBudget, epsilon_of, rho_of
from sweeps.pate.agreement import (
    independent_agreement,
    probability_jaccard,
    total_variation,
    weighted_jaccard,
)
from sweeps.pate.ensemble import DenseEnsemble, Ensemble, SparseEnsemble
from sweeps.pate.generator import Group, PrivateGenerator, TeachersAlong, mean_text
from sweeps.pate.ledger import BudgetSpent, Ledger
from sweeps.pate.randomness import OneTimeRandomness
from sweeps.pate.release import (
    ConfidentGNMax,
    HeterogeneousRelease,
    HomogeneousRelease,
    ReleaseRule,
    release_rule,
)
from sweeps.pate.report import PrivacyReport
from sweeps.pate.shards import ShardCounts
from sweeps.pate.tuning import PublicPosition, choose_release

__all__ = [
    "AttemptCost",
    "BudgetSpent",
    "ConfidentGNMax",
    "DenseEnsemble",
    "Ensemble",
    "Group",
    "HeterogeneousRelease",
    "HomogeneousRelease",
    "Ledger",
    "OneTimeRandomness",
    "PrivacyBudget",
    "PrivacyReport",
    "PrivateGenerator",
    "PublicPosition",
    "ReleaseRule",
    "ShardCounts",
    "SparseEnsemble",
    "TeachersAlong",
    "choose_release",
    "epsilon_of",
    "independent_agreement",
    "mean_text",
    "probability_jaccard",
    "release_rule",
    "rho_of",
    "total_variation",
    "weighted_jaccard",
]
