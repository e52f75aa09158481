"""The ladder's shapes, and the decoder against transformers' own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.ladder import shape_for
from sweeps.data import source_of, tokenize
from sweeps.model.decoder import Decoder
from sweeps.model.model_files import load_model, save_model

SIZES = (3e3, 7e3, 13e3, 56e3, 107e3, 330e3)


def shape(params: float) -> ModelShape:
    return shape_for(params, vocab=300, context=32, aspect_ratio=32)


def test_the_ladder_gives_the_nearest_rung() -> None:
    rungs = sorted({shape(10**power).params for power in torch.arange(3.5, 7, 0.002).tolist()})
    for low, high in itertools.pairwise(rungs):
        middle = (low * high) ** 0.5
        assert shape(middle * 0.99).params == low
        assert shape(middle * 1.01).params == high
        assert high / low < 2.6
    for rung in rungs:
        assert shape(rung).params == rung


@pytest.mark.parametrize("aspect_ratio", [16, 32, 64, 128])
def test_depth_follows_width_at_a_fixed_ratio(aspect_ratio: float) -> None:
    for params in (1e5, 1e6, 1e7, 1e8, 1e9):
        rung = shape_for(params, vocab=512, context=128, aspect_ratio=aspect_ratio)
        assert abs(rung.width / aspect_ratio - rung.layers) <= max(0.5, 1 - rung.width / aspect_ratio)
        assert rung.heads * rung.head_dim == rung.width
        assert rung.params == pytest.approx(params, rel=0.75)


def test_the_paper_s_models_are_rungs() -> None:
    """All 33 rows of Table 13 of Busbridge et al. 2025."""
    rows = pd.read_csv(Path(__file__).parents[2] / "scaling" / "costs" / "table_13.csv", comment="#")
    for row in rows.itertuples():
        rung = shape_for(row.params * 1e9, vocab=32768, context=4096, aspect_ratio=128)
        assert (rung.layers, rung.width, rung.ffn) == (row.layers, row.width, row.ffn)
        if row.ffn != 12672:  # "10B": its printed parameters and FLOPs imply 12800
            assert rung.params == pytest.approx(row.params * 1e9, rel=2e-3)


def test_too_small_a_model_is_refused() -> None:
    with pytest.raises(InputError, match="below the ladder's smallest model"):
        shape(100)


@pytest.mark.parametrize("params", SIZES)
def test_parameter_counts_are_exact(params: float) -> None:
    rung = shape(params)
    model = Decoder(rung)
    assert sum(p.numel() for p in model.parameters()) == rung.total_params
    assert rung.total_params - model.model.embed_tokens.weight.numel() == rung.params


@pytest.mark.parametrize("params", [3e3, 56e3, 330e3])
def test_transformers_gives_the_same_logits(
    params: float, text_file: Path, tmp_path: Path, own_cache: Path
) -> None:
    from transformers import AutoModelForCausalLM

    rung = shape(params)
    model = Decoder(rung)
    model.initialize(seed=1)
    for parameter in model.parameters():  # gains too, so that a swapped pair of norms would show
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    corpus = tokenize(source_of(str(text_file)), vocab=300, heldout=0.1, seed=0)
    checksum = save_model(model, corpus.tokenizer_files, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False, dtype=torch.float32)
    tokens = torch.randint(300, (3, 32), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            load_model(tmp_path, rung, checksum)(tokens), model(tokens), rtol=0, atol=0
        )


def test_damaged_weights_are_not_used(tmp_path: Path, text_file: Path, own_cache: Path) -> None:
    model = Decoder(shape(3e3))
    corpus = tokenize(source_of(str(text_file)), vocab=300, heldout=0.1, seed=0)
    checksum = save_model(model, corpus.tokenizer_files, tmp_path)
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(
        InputError, match=r"model.safetensors: missing or damaged; to train it again, delete .*result.json"
    ):
        load_model(tmp_path, model.shape, checksum)
    weights.unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        load_model(tmp_path, model.shape, checksum)


def test_no_token_sees_the_future() -> None:
    model = Decoder(shape(56e3))
    model.initialize(seed=0)
    tokens = torch.randint(300, (1, 32), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 300
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], rtol=0, atol=0)
    assert (before[:, 20:] - after[:, 20:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("params", SIZES)
def test_logits_start_at_order_one_at_every_width(params: float) -> None:
    model = Decoder(shape(params))
    model.initialize(seed=0)
    tokens = torch.randint(300, (8, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert 0.5 < model(tokens).std() < 2


def test_initialization_is_the_seed_s() -> None:
    first, same, other = (Decoder(shape(7e3)) for _ in range(3))
    first.initialize(5)
    same.initialize(5)
    other.initialize(6)
    for (name, a), (_, b), (_, c) in zip(*(m.named_parameters() for m in (first, same, other)), strict=True):
        assert torch.equal(a, b)
        assert "norm" in name or not torch.equal(a, c)
