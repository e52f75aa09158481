"""Methods of the preset ``features``, which differ in the normalization of the features of two teachers.

Each is a dictionary of a method's fields, for ``use: sweeps.methods.feature_normalizations:features_phi_s``.
Targets are the residual stream after the first block of a run's own teacher, and what the final norm of the
sweep's teacher 1 returns: the standard deviations of their channels are 102 and .65 in the shipped runs.
"""

from __future__ import annotations

from typing import Any

MODULE = "sweeps.methods.feature_targets"


def _method(normalization: str, weight: float = 1.0, scale: float = 1.0, token_loss: bool = False) -> Any:
    """Return a method with the features of two teachers, the second's multiplied by ``scale``.

    ``weight`` keeps a raw loss near one, so that it is not taken for a diverged run. Adam's steps hardly
    depend on it.
    """
    loss: dict[str, Any] = {
        "use": f"{MODULE}:FeatureTargets",
        "layers_by_teacher": [[1], [-1]],
        "normalization": normalization,
        "weight": weight,
    }
    return {
        "auxiliary_losses": [loss | ({"scales": [1, scale]} if scale != 1 else {})],
        "metrics": [{"use": f"{MODULE}:FeatureVariance"}],
        "token_loss_weight": 1 if token_loss else 0,
        "other_teachers": [1],
    }


features_none = _method("none", 1e-3)
features_global = _method("global")
features_standardize = _method("standardize")
features_scalar = _method("scalar")
features_phi_s = _method("phi-s")
features_pca_w = _method("pca-w")
features_zca = _method("zca")
features_hca = _method("hca")

features_none_x10 = _method("none", 1e-3, 10)
features_none_x100 = _method("none", 1e-4, 100)
features_none_x191 = _method("none", 3e-5, 191)
features_phi_s_x10 = _method("phi-s", scale=10)
features_phi_s_x100 = _method("phi-s", scale=100)
features_phi_s_x191 = _method("phi-s", scale=191)

kl_and_features_0_1 = _method("phi-s", 0.1, token_loss=True)
kl_and_features_1 = _method("phi-s", 1.0, token_loss=True)
