"""Statistics, normalizations, heads, losses and metrics for distilling features of several teachers.

The method is PHI-S (Ranzinger et al. 2024, arXiv 2410.01680). Nothing here knows of sweeps or language
models: features are tensors of any shape whose last dimension is the channels. Imports no other room.
"""

from sweeps.features.hadamard import hadamard, has_hadamard
from sweeps.features.heads import FeatureHead
from sweeps.features.kurtosis import ChannelKurtosis
from sweeps.features.losses import FEATURE_LOSSES, FeatureLoss, combined_loss
from sweeps.features.metrics import UnexplainedVariance, fvu_summary
from sweeps.features.moments import FeatureMoments
from sweeps.features.normalization import MODES, Normalization, fit_normalization, fold_affine
from sweeps.features.normalizer import FeatureNormalizer
from sweeps.features.rotation import balancing_rotation, schur_horn_rotation

__all__ = [
    "FEATURE_LOSSES",
    "MODES",
    "ChannelKurtosis",
    "FeatureHead",
    "FeatureLoss",
    "FeatureMoments",
    "FeatureNormalizer",
    "Normalization",
    "UnexplainedVariance",
    "balancing_rotation",
    "combined_loss",
    "fit_normalization",
    "fold_affine",
    "fvu_summary",
    "hadamard",
    "has_hadamard",
    "schur_horn_rotation",
]
