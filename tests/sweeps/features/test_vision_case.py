"""Two frozen image encoders and a student, in a few steps: scales, balance, and what normalization does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PATH = Path(__file__).parents[3] / "benchmarks" / "vision_features.py"
STEPS = 60


@pytest.fixture(scope="module")
def vision() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vision_features", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_encoders_differ_in_scale_and_are_frozen(vision: ModuleType) -> None:
    study = vision.Study.made(STEPS)
    moments = study.moments(batches=4)
    scales = {name: each.covariance().diagonal().mean().sqrt().item() for name, each in moments.items()}
    assert scales["autoencoder"] > 100 * scales["contrasts"]
    images = vision.crops(study.seen, 2, seed=0)
    for name, width in (("contrasts", 48), ("autoencoder", 60)):
        features = study.teachers[name](images)
        assert features.shape == (2, 16, width)
        assert not features.requires_grad
    assert torch.equal(images, vision.crops(study.seen, 2, seed=0))
    assert (len(study.seen), len(study.unseen)) == (6, 2)


def test_raw_features_starve_the_small_teacher_and_balanced_ones_do_not(vision: ModuleType) -> None:
    found = vision.summary(vision.table(STEPS, 1, ("none", "scalar", "phi-s")))
    assert found.at["none", "contrasts"] > 0.95
    assert found.at["none", "worst"] > 1.2 * found.at["phi-s", "worst"]
    assert found.at["phi-s", "mean"] < 0.9 * found.at["none", "mean"]
    assert found.at["scalar", "difference"] == 0
