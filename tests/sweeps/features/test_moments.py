"""Moments of features: exact merging, masks, precision, processes, and what is refused."""

from __future__ import annotations

import math
from threading import Barrier, Lock, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_features import synthetic
from torch import Tensor

from scaling.errors import InputError
from sweeps.features import ChannelKurtosis, FeatureMoments


@pytest.fixture
def features() -> Tensor:
    return synthetic(32, 400)


def accumulated(chunks: list[Tensor], width: int) -> FeatureMoments:
    moments = FeatureMoments.empty(width)
    for chunk in chunks:
        moments = moments.with_features(chunk)
    return moments


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from([0.0, 1e6]))
def test_chunks_of_any_size_give_the_moments_of_all(sizes: list[int], seed: int, offset: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(sizes) + 2, 3, generator=draw, dtype=torch.float64) + offset
    moments = accumulated([*rows.split([*sizes, 2])], 3)
    assert moments.count == len(rows)
    assert torch.allclose(moments.mean, rows.mean(0), rtol=1e-13, atol=1e-13)
    assert torch.allclose(moments.covariance(), rows.T.cov(), rtol=1e-9, atol=1e-9)


def test_masked_positions_do_not_count(features: Tensor) -> None:
    blocks = features.reshape(20, 20, 32).clone()
    mask = torch.ones(20, 20, dtype=torch.bool)
    mask[:, 0] = False
    blocks[:, 0] = torch.nan  # whatever stands there
    found = FeatureMoments.of(blocks, mask)
    assert found.count == 380
    assert torch.allclose(found.covariance(), blocks[:, 1:].flatten(0, 1).T.cov(), rtol=1e-12, atol=1e-14)


def test_nothing_is_lost_to_sixteen_bits() -> None:
    rows = (torch.randn(4000, 4, generator=torch.Generator().manual_seed(1)) + 50).to(torch.bfloat16)
    expected = np.cov(rows.double().numpy().T)
    assert np.allclose(FeatureMoments.of(rows).covariance().numpy(), expected, rtol=1e-12)
    assert FeatureMoments.of(rows).scatter.dtype == torch.float64


def test_statistics_of_sixteen_bits_are_refused(features: Tensor) -> None:
    state = FeatureMoments.of(features).state_dict()
    with pytest.raises(InputError, match=r"scatter: statistics are kept in float64, not torch\.bfloat16"):
        FeatureMoments.from_state_dict(state | {"scatter": state["scatter"].bfloat16()})
    with pytest.raises(InputError, match=r"scatter: shape \(3, 32\), expected \(32, 32\)"):
        FeatureMoments.from_state_dict(state | {"scatter": state["scatter"][:3]})


@pytest.mark.parametrize(
    ("rows", "mask", "reason"),
    [
        (torch.ones(2, 3, dtype=torch.long), None, "expected floating-point"),
        (torch.tensor(1.0), None, r"shape \(\)"),
        (
            torch.tensor([[1.0, torch.inf], [0.0, 0.0]]),
            None,
            "1 of 2 counted positions hold a number that is not",
        ),
        (torch.ones(2, 3), torch.ones(2), "expected booleans, not torch.float32"),
        (torch.ones(2, 3), torch.ones(3, dtype=torch.bool), r"mask: shape \(3,\); features need \(2,\)"),
    ],
)
def test_features_that_cannot_be_counted_are_refused(rows: Tensor, mask: Tensor | None, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        FeatureMoments.of(rows, mask)


def test_widths_must_agree() -> None:
    with pytest.raises(InputError, match="4 channels cannot be merged with 3"):
        FeatureMoments.empty(3).with_features(torch.ones(2, 4))


@pytest.mark.parametrize(("count", "words"), [(0, "no position"), (1, "one position")])
def test_one_token_has_no_variance(count: int, words: str) -> None:
    with pytest.raises(InputError, match=f"{words} counted; a variance needs two"):
        FeatureMoments.of(torch.ones(count, 3)).covariance()


class Threads:
    """Processes that add up, as threads."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.lock, self.sum = size, Barrier(size), Lock(), torch.zeros(())

    def total(self, share: Tensor) -> Tensor:
        if self.barrier.wait() == 0:
            self.sum = torch.zeros_like(share)
        self.barrier.wait()
        with self.lock:
            self.sum = self.sum + share
        self.barrier.wait()
        found = self.sum.clone()
        self.barrier.wait()
        return found


def test_processes_agree_on_the_moments_of_all(features: Tensor) -> None:
    threads, found = Threads(3), [FeatureMoments.empty(32)] * 3
    shares = [features[:100], features[100:390], features[:0]]

    def work(rank: int) -> None:
        found[rank] = FeatureMoments.of(shares[rank]).reduced(threads.total)

    running = [Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    expected = FeatureMoments.of(features[:390])
    for moments in found:
        assert moments.count == 390
        assert torch.allclose(moments.mean, expected.mean, rtol=1e-13)
        assert torch.allclose(moments.scatter, expected.scatter, rtol=1e-11, atol=1e-12)


def test_kurtosis_is_that_of_scipy_however_it_is_chunked(features: Tensor) -> None:
    rows = features.clone()
    rows[7, 3] += 200  # a massive activation
    whole = ChannelKurtosis.of(rows).values()
    assert np.allclose(whole, stats.kurtosis(rows.numpy(), fisher=False), rtol=1e-10)
    assert int(whole.argmax()) == 3
    merged = ChannelKurtosis.of(rows[:0])
    for chunk in rows.split([1, 2, 30, 167, 200]):
        merged = merged.merged(ChannelKurtosis.of(chunk))
    assert torch.allclose(merged.values(), whole, rtol=1e-9)
    assert math.isnan(ChannelKurtosis.of(torch.ones(3, 1)).values())
