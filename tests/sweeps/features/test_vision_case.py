"""Two frozen image encoders and a student, in a few steps: scales, balance, and what normalization does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.fixture(scope="module")
def study(vision: ModuleType) -> Any:
    return vision.Study.made(STEPS, images=512)


def test_encoders_differ_in_scale_and_are_frozen(vision: ModuleType, study: Any) -> None:
    scales = {n: each.covariance().diagonal().mean().sqrt().item() for n, each in study.moments().items()}
    assert scales["autoencoder"] > 100 * scales["contrasts"]
    assert {name: each.shape for name, each in study.features.items()} == {
        "contrasts": (512, 16, 48),
        "autoencoder": (512, 16, 60),
    }
    assert not any(each.requires_grad for each in study.features.values())


def test_the_strips_that_are_held_out_are_no_part_of_what_is_seen(vision: ModuleType) -> None:
    strips = vision.photograph()
    assert strips.shape == (8, 3, strips.shape[2], vision.STRIP)
    assert torch.equal(vision.crops(strips, 3, seed=2), vision.crops(strips, 3, seed=2))
    numbers = torch.arange(8.0)[:, None, None, None].expand_as(strips)
    kept = [number for number in range(8) if number not in vision.HELD_OUT]
    assert not set(vision.HELD_OUT) & set(vision.crops(numbers[kept], 200, seed=0).unique().int().tolist())


def test_raw_features_starve_the_small_teacher_and_balanced_ones_do_not(
    vision: ModuleType, study: Any
) -> None:
    found = vision.summary(vision.table(study, 2 * STEPS, 1, ("none", "scalar", "phi-s")))
    assert found.at["none", "contrasts"] > 0.95
    assert found.at["none", "worst"] > 1.2 * found.at["phi-s", "worst"]
    assert found.at["phi-s", "mean"] < 0.9 * found.at["none", "mean"]
    assert found.at["scalar", "difference"] == 0
