"""Normalization estimated in the first updates: refits, freezing, checkpoints, processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_features import synthetic
from torch import Tensor

from scaling.errors import InputError
from sweeps.features import FeatureMoments, FeatureNormalizer, fit_normalization

BATCHES = synthetic(12, 300).split(20)


def normalizer(mode: Any = "phi-s", width: int = 12, **options: Any) -> FeatureNormalizer:
    return FeatureNormalizer(mode, width, **({"refresh_every": 3, "freeze_after": 7} | options))


def test_it_is_fitted_on_schedule_and_then_frozen() -> None:
    made = normalizer()
    assert [made.update(batch) for batch in BATCHES] == [n in (3, 6, 7) for n in range(1, 16)]
    assert made.frozen
    expected = fit_normalization(FeatureMoments.of(torch.cat(BATCHES[:7])), "phi-s")
    assert made.moments.count == 140
    assert made.normalization.change_from(expected) < 1e-10


def test_change_is_zero_of_itself_and_not_of_another_fit() -> None:
    made = normalizer()
    for batch in BATCHES[:3]:
        made.update(batch)
    first = made.normalization
    for batch in BATCHES[3:]:
        made.update(batch)
    assert first.change_from(first) < 1e-12
    assert made.normalization.change_from(first) > 0.01


def test_before_the_first_fit_there_is_none() -> None:
    made = normalizer()
    made.update(BATCHES[0])
    assert not made.ready
    with pytest.raises(InputError, match="nothing is fitted before update 3, and there were 1"):
        made.normalization  # noqa: B018


@pytest.mark.parametrize("stop", [1, 4, 7, 9])
def test_a_run_resumed_from_a_file_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole, first, second = normalizer(), normalizer(), normalizer()
    for batch in BATCHES:
        whole.update(batch)
    for batch in BATCHES[:stop]:
        first.update(batch)
    save_file(first.state_dict(), tmp_path / "state.safetensors")
    second.load_state_dict(load_file(tmp_path / "state.safetensors"))
    for batch in BATCHES[stop:]:
        second.update(batch)
    expected, found = whole.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_another_normalizer_is_refused() -> None:
    saved = normalizer()
    for batch in BATCHES:
        saved.update(batch)
    with pytest.raises(InputError, match="the saved one is phi-s, not zca"):
        normalizer("zca").load_state_dict(saved.state_dict())
    with pytest.raises(InputError, match="the saved one has 12 channels, not 8"):
        normalizer(width=8).load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"refresh_every": 0}, "refresh_every: 0 updates; expected 1 to freeze_after, 7"),
        ({"refresh_every": 8}, "refresh_every: 8"),
        ({"mode": "whiten"}, "'whiten' is none of"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        normalizer(**options)


class Other:
    """A process beside one that holds the same features: sums are twice its own."""

    def __init__(self, leads: bool) -> None:
        self.leads = leads

    def total(self, share: Tensor) -> Tensor:
        return share.mul_(2) if share.is_floating_point() and not self.leads else share


def test_the_leading_process_decides_on_the_normalization() -> None:
    """A process that does not lead adds nothing of its own to what all take."""
    follower = normalizer("phi-s", processes=Other(leads=False), refresh_every=1)
    follower.update(BATCHES[0])
    assert follower.moments.count == 40
    assert not follower.normalization.weight.any()
    leader = normalizer("phi-s", processes=Other(leads=True), refresh_every=1)
    leader.update(BATCHES[0])
    expected = fit_normalization(FeatureMoments.of(BATCHES[0]), "phi-s")
    assert torch.allclose(leader.normalization.weight, expected.weight, atol=1e-10)
