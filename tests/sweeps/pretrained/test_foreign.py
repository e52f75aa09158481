"""Teachers that were not trained here: found, refused, counted, measured, followed."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import VOCAB, made
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps import results
from sweeps.dag.expand import Step
from sweeps.dag.external_shape import CountedShape
from sweeps.dag.ladder import shape_for
from sweeps.data.corpus import tokens_of
from sweeps.distill.generation.sampling import uniform_numbers, write
from sweeps.distill.models import load_foreign
from sweeps.distill.targets import Online
from sweeps.estimate.fit_preview import expected_findings
from sweeps.execute.steps.step import run_step
from sweeps.model.decoder import Decoder
from sweeps.model.language_model import logits_of
from sweeps.model.model_files import save_model, shape_of
from sweeps.pretrained import count
from sweeps.pretrained.count import read_card
from sweeps.pretrained.load import load_pretrained, wrap
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store


def same_logits(folder: Path, vocab: int = VOCAB) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load_pretrained(folder, vocab)
    tokens = torch.randint(vocab, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits[..., :vocab]
        logits = logits_of(ours, ours.model(tokens))
        close = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(logits, expected, rtol=0, atol=close)
        written = write([ours], tokens[:, :8], uniform_numbers(2, 32, 0))
        read = theirs(written.blocks[:, :-1]).logits[:, 7:, :vocab].log_softmax(-1)
    read = read.gather(-1, written.blocks[:, 8:, None]).squeeze(-1)
    torch.testing.assert_close(written.by_writer[0], read, rtol=0, atol=2 * close)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"tie_word_embeddings": False}),
        ("Llama", {"tie_word_embeddings": True, "mlp_bias": True}),
        ("Qwen2", {}),
        ("Phi", {}),  # a bias after the projection
        ("Cohere", {"logit_scale": 0.25}),
        ("Granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0}),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 1.0}),
        ("Gemma3Text", {"head_dim": 8, "final_logit_softcapping": 2.0}),
        ("NanoChat", {}),  # a cap by default
        ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
def test_logits_are_the_model_s_own(save: Callable[..., Path], kind: str, changes: dict[str, Any]) -> None:
    model = made(kind, **changes)
    folder = save(model)
    same_logits(folder)
    inside = {id(model.get_input_embeddings().weight), *map(id, model.get_output_embeddings().parameters())}
    if kind == "GPT2":
        inside.add(id(model.transformer.wpe.weight))
    assert read_card(folder).shape.params == sum(p.numel() for p in model.parameters() if id(p) not in inside)


def test_flops_of_a_llama_are_those_of_its_shape(llama: Path) -> None:
    """The counted shape against the formula for what it is: grouped queries, no norms of queries and keys."""
    shape = ModelShape(
        layers=2,
        width=32,
        ffn=48,
        heads=4,
        head_dim=8,
        kv_heads=2,
        vocab=VOCAB,
        context=64,
        tied=False,
        qk_norm=False,
    )
    counted = read_card(llama).shape
    assert (counted.params, counted.forward_flops) == (shape.params, shape.forward_flops)
    assert counted.total_params == shape.total_params
    assert read_card(llama) == read_card(llama)  # and as it is remembered


def test_students_follow_capped_logits_in_chunks_or_not(
    spec: dict[str, Any], save: Callable[..., Path], own_cache: Path, tmp_path: Path
) -> None:
    """A teacher whose cap binds: its held-out loss, and its rows in either form."""
    model = made("Gemma2", head_dim=8, final_logit_softcapping=2.0)
    folder = save(model, "capped")
    spec["teachers"] = [{"model": str(folder)}]
    evaluate, student = dag_of(parse_sweep(spec)).steps
    store = Store(tmp_path / "store")
    store.create()
    measured = run_step(store, evaluate)
    assert run_step(store, student)["loss"] < 9
    heldout = torch.from_numpy(tokens_of(evaluate.corpus).heldout.astype("int64"))
    blocks = heldout[: (len(heldout) - 1) // 32 * 32 + 1].unfold(0, 33, 32)
    with torch.no_grad():
        expected = model(blocks[:, :-1]).logits.log_softmax(-1)
    loss = -expected.gather(-1, blocks[:, 1:, None]).double().mean()
    assert measured["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert expected.amax() - expected.amin() > 3.0  # of at most 4, by the cap
    teacher = load_foreign(evaluate)
    for whole in (True, False):
        reader = Online(teacher, returns_log_probs=whole)
        rows = reader.rows(blocks[:4, :-1], torch.arange(4))
        torch.testing.assert_close(
            reader.log_probabilities(rows, 1.0), expected[:4].flatten(0, 1), rtol=1e-5, atol=1e-5
        )
        soft = reader.log_probabilities(rows, 2.0)
        torch.testing.assert_close(
            soft, (expected[:4] / 2).log_softmax(-1).flatten(0, 1), rtol=1e-5, atol=1e-5
        )


def test_a_factor_before_a_soft_cap_is_found(save: Callable[..., Path]) -> None:
    model = made("Gemma2", head_dim=8, final_logit_softcapping=2.0)
    project = model.lm_head.forward
    model.lm_head.forward = lambda x: 0.5 * project(x)
    with torch.no_grad():
        ours = wrap(model, VOCAB)
        features = ours.model(torch.arange(40)[None])
        torch.testing.assert_close(logits_of(ours, features), model(torch.arange(40)[None]).logits)
    model.lm_head.forward = lambda x: project(x).square()
    with pytest.raises(InputError, match="more to its logits than project them and cap them softly at 2"):
        wrap(model, VOCAB)


def test_a_soft_cap_that_no_setting_names_is_refused(
    spec: dict[str, Any], save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(made("Gemma2", head_dim=8, final_logit_softcapping=5.0), "capped")
    spec["teachers"][0]["model"] = str(folder)
    monkeypatch.setattr(count, "SOFT_CAP_NAMES", ("other_cap",))
    with pytest.raises(
        InputError, match=r"teachers\[0\]: .*Gemma2ForCausalLM caps its logits softly, by no set"
    ):
        dag_of(parse_sweep(spec))


def test_a_plan_with_an_unknown_number_of_tokens_prints_no_warning(spec: dict[str, Any]) -> None:
    del spec["teachers"][0]["tokens"]
    assert expected_findings(dag_of(parse_sweep(spec)))  # NumPy's warnings are errors here


def test_a_teacher_follows_the_precision_of_the_runs_or_its_own(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    plain = dag_of(parse_sweep(spec)).steps[0]
    spec["training"] |= {"precision": "bf16"}
    rounded = dag_of(parse_sweep(spec)).steps[0]
    spec["teachers"][0]["precision"] = "fp32"
    own = dag_of(parse_sweep(spec)).steps[0]
    assert [step.precision for step in (plain, rounded, own)] == ["fp32", "bf16", "fp32"]
    assert plain.id == own.id != rounded.id
    assert Step.from_json(json.loads(json.dumps(rounded.as_json()))) == rounded
    store = Store(tmp_path / "store")
    store.create()
    losses = [run_step(store, step)["loss"] for step in (plain, rounded)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    with torch.no_grad():
        teacher = load_foreign(rounded)
        assert teacher.head.dtype == teacher.model(torch.zeros(1, 8).long()).dtype == torch.bfloat16


def test_shapes_of_older_stores_are_read(llama: Path) -> None:
    """Before FLOPs were counted: of a dense model they are the same."""
    new = read_card(llama).shape
    old = {field.name: getattr(new, field.name) for field in fields(ModelShape)} | {
        "counted": new.params,
        "multiplied": new.params - 5 * 32,
    }  # all but the gains
    again = CountedShape.read(old)
    assert again.params == new.params
    assert again.total_params == new.total_params
    assert again.forward_flops == new.forward_flops


def test_padding_of_a_vocabulary_is_left_out(save: Callable[..., Path]) -> None:
    """Outputs that no token has: what remains is normalised, and so is what is followed."""
    folder = save(made("Llama", vocab_size=320))
    same_logits(folder)
    assert load_pretrained(folder, VOCAB).head.shape[0] == VOCAB
    assert read_card(folder).shape.vocab == 320


@pytest.mark.parametrize(("kind", "tied"), [("Llama", False), ("Llama", True), ("Phi", False)])
def test_padding_may_be_minus_infinity(save: Callable[..., Path], kind: str, tied: bool) -> None:
    """Rows of the output projection, tied or not, and its bias: they are left out like any padding."""
    model = made(kind, vocab_size=320, tie_word_embeddings=tied)
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter[VOCAB:] = -math.inf
    folder = save(model)
    same_logits(folder)
    assert load_pretrained(folder, VOCAB).head.isfinite().all()
    with pytest.raises(InputError, match="its weights are not all finite numbers"):
        load_pretrained(folder, VOCAB + 1)  # a token that there is


def test_a_token_may_have_no_probability(save: Callable[..., Path]) -> None:
    """A bias of -inf: its logit is -inf, and all others are the model's own."""
    model = made("Phi")
    with torch.no_grad():
        model.lm_head.bias[[5, 290]] = -math.inf
    folder = save(model)
    ours = load_pretrained(folder, VOCAB)
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        logits, theirs = F.linear(ours.model(tokens), ours.head), model(tokens).logits
    assert logits[..., [5, 290]].isneginf().all()
    torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.lm_head.bias[:] = -math.inf
    with pytest.raises(InputError, match="not all finite numbers"):
        load_pretrained(save(model, "none"), VOCAB)


def test_a_text_that_the_teacher_excludes_is_told(
    spec: dict[str, Any], save: Callable[..., Path], own_cache: Path, tmp_path: Path
) -> None:
    model = made("Phi")
    with torch.no_grad():
        model.lm_head.bias[10:200] = -math.inf
    spec["teachers"] = [{"model": str(save(model, "phi"))}]
    store = Store(tmp_path / "store")
    with pytest.raises(InputError, match="held-out loss is inf: it gives no probability to a token of that"):
        run_step(store, dag_of(parse_sweep(spec)).steps[0])


def test_a_sweep_measures_it_and_distils_from_it(
    spec: dict[str, Any], llama: Path, own_cache: Path, tmp_path: Path
) -> None:
    dag = dag_of(parse_sweep(spec))
    assert [step.kind for step in dag.steps] == ["evaluate", "pretrain", "distil", "distil"]
    evaluate = dag.steps[0]
    assert evaluate.shape.params == read_card(llama).shape.params
    assert evaluate.foreign is not None
    assert evaluate.foreign.heldout_tokens > 1000
    assert evaluate.tokens == 0
    assert evaluate.flops_to_spend == evaluate.foreign.heldout_tokens * evaluate.shape.forward_flops
    for step in dag.steps:
        again = Step.from_json(json.loads(json.dumps(step.as_json())))
        assert (again, again.id) == (step, step.id)
    store = Store(tmp_path / "store")
    store.create()
    for step in dag.steps:
        run_step(store, step)
    measured = store.result(evaluate.id)
    assert measured is not None
    assert 4 < measured["loss"] < 12  # random weights, 300 tokens
    recorded = {"spec": {}, "steps": [step.id for step in dag.steps], "setting": evaluate.setting}
    store.write(recorded, "sweep.json")
    table = results(store.root)
    assert sorted(table["kind"]) == ["distillation", "distillation", "supervised"]
    student = table[table["teacher"] == evaluate.id].iloc[0]
    assert student["teacher_loss"] == measured["loss"]
    assert student["teacher_tokens"] == 2e12
    assert student["teacher_params"] == evaluate.shape.params
    assert student["flops"] == next(s.flops for s in dag.steps if s.teacher and s.teacher.foreign)


def test_what_it_was_trained_on_may_be_unknown(spec: dict[str, Any]) -> None:
    del spec["teachers"][0]["tokens"]
    (unknown,) = [step for step in dag_of(parse_sweep(spec)).steps if step.foreign]
    spec["teachers"][0]["tokens"] = "1T"
    (known,) = [step for step in dag_of(parse_sweep(spec)).steps if step.foreign]
    assert unknown.foreign is not None
    assert unknown.foreign.tokens is None
    assert unknown.id == known.id  # knowing more changes no number


def test_a_model_is_identified_by_its_files(spec: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    def id_of(model: Path) -> str:
        spec["teachers"][0]["model"] = str(model)
        return next(step.id for step in dag_of(parse_sweep(spec)).steps if step.foreign)

    first = id_of(llama)
    assert id_of(shutil.copytree(llama, tmp_path / "copy")) == first
    weights = load_file(llama / "model.safetensors")
    save_file(weights | {"model.norm.weight": weights["model.norm.weight"] + 1}, llama / "model.safetensors")
    assert id_of(llama) != first


def test_a_model_that_changes_after_the_plan_is_refused(
    spec: dict[str, Any], llama: Path, own_cache: Path, tmp_path: Path
) -> None:
    (step,) = [step for step in dag_of(parse_sweep(spec)).steps if step.foreign]
    weights = load_file(llama / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, llama / "model.safetensors")
    with pytest.raises(InputError, match="has changed since this sweep was planned"):
        run_step(Store(tmp_path / "store"), step)


def test_a_run_of_ours_teaches_with_the_loss_it_had(
    small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """And its students end as they did, in bfloat16 too. Without a tokenizer in the spec: the one trained on
    this text is the run's own."""
    sweep = small_spec | {"supervised": [], "students": [{"params": ["3k"], "tokens": ["32k"]}]}
    sweep["training"] = sweep["training"] | {"precision": "bf16"}
    sweep["teachers"] = [{"params": ["7k"], "tokens": ["32k"]}]
    own, student = dag_of(parse_sweep(sweep)).steps
    store = Store(tmp_path / "store")
    store.create()
    trained, distilled = run_step(store, own), run_step(store, student)
    with store.model(own.id) as folder:
        shutil.copytree(folder, tmp_path / "given")
    sweep["teachers"] = [{"model": str(tmp_path / "given")}]
    evaluate, student = dag_of(parse_sweep(sweep)).steps
    assert evaluate.shape.params == own.shape.params
    assert run_step(store, evaluate)["loss"] == trained["loss"]
    assert run_step(store, student)["loss"] == distilled["loss"]


def broken(folder: Path, how: str) -> None:
    """Damage a model's directory."""
    config = json.loads((folder / "config.json").read_text())
    if how == "remote":
        config |= {"model_type": "mystery", "auto_map": {"AutoModelForCausalLM": "modeling.Mystery"}}
    elif how == "unknown":
        config["model_type"] = "mystery"
    elif how == "vision":
        config["model_type"] = "vit"
    elif how == "short":
        config["max_position_embeddings"] = 16
    elif how == "small":
        config["vocab_size"] = 200
    elif how == "index":
        listed = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    elif how in ("pickle", "gguf", "nothing"):
        (folder / "model.safetensors").unlink()
        if how != "nothing":
            (folder / {"pickle": "pytorch_model.bin", "gguf": "model.gguf"}[how]).write_bytes(b"")
    elif how == "tokens":
        shutil.rmtree(folder / "tokenizer.json", ignore_errors=True)
        (folder / "tokenizer.json").unlink()
    elif how == "garbled":
        (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("[" if how == "config" else json.dumps(config))
    if how == "empty":
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("remote", "needs code from its repository"),
        ("unknown", "is not a causal language model that transformers can build"),
        ("vision", "is not a causal language model that transformers can build"),
        ("short", "contexts of at most 16 tokens; lower corpus.context"),
        ("small", "has outputs for 200 tokens, fewer than the 300 of its tokenizer"),
        ("index", "incomplete: model-00001-of-00002.safetensors missing"),
        ("pickle", "as pickles .pytorch_model.bin., which can run code and are not read"),
        ("gguf", "has a GGUF file; convert it to a directory once: distlaw teacher import .*model.gguf"),
        ("nothing", "has no weights"),
        ("tokens", "no tokenizer.json in"),
        ("garbled", "is not a tokenizer"),
        ("config", "config.json cannot be read"),
        ("empty", "is not a model directory .no config.json."),
    ],
)
def test_what_cannot_teach_is_refused_when_the_spec_is_read(
    spec: dict[str, Any], llama: Path, tmp_path: Path, own_cache: Path, how: str, message: str
) -> None:
    folder = shutil.copytree(llama, tmp_path / "broken")
    broken(folder, how)
    spec["teachers"][0]["model"] = str(folder)
    with pytest.raises(InputError, match=message) as error:
        dag_of(parse_sweep(spec))
    assert str(error.value).startswith("teachers[0]: ")


def test_numbers_that_are_none_are_refused(llama: Path, tmp_path: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"not all finite numbers \(model.layers.1.mlp.up_proj.weight\)"):
        load_pretrained(llama, VOCAB)


def test_weights_that_do_not_fit_are_refused(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit its config.json: model.layers.0.mlp.up_proj.weight is"):
        load_pretrained(llama, VOCAB)


def test_other_tokens_are_told_apart_by_size_and_by_string(
    spec: dict[str, Any], llama: Path, tmp_path: Path, own_cache: Path
) -> None:
    advice = rf"set\n    corpus: {{tokenizer: {llama}}}"
    spec["corpus"] = spec["corpus"] | {"tokenizer": None, "vocab": 280}
    with pytest.raises(InputError, match=rf"it has 300 tokens, the students 280; (?s:.*){advice}"):
        dag_of(parse_sweep(spec))
    tokenizer = json.loads((llama / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    ids["A"], ids["B"] = ids["B"], ids["A"]
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    spec["corpus"] = {name: value for name, value in spec["corpus"].items() if name != "vocab"}
    spec["corpus"]["tokenizer"] = str(other)
    with pytest.raises(InputError, match=rf"2 ids are other strings \((?s:.*){advice}") as error:
        dag_of(parse_sweep(spec))
    assert f"{ids['B']} is 'A', not 'B'" in str(error.value)


def test_a_spec_says_what_is_wrong_with_a_teacher(spec: dict[str, Any]) -> None:
    spec["teachers"][0] |= {"modle": 1, "tokens": -1}
    with pytest.raises(InputError) as error:
        parse_sweep(spec)
    text = str(error.value)
    assert "teachers[0].modle: no such field; did you mean 'model'?" in text
    assert "teachers[0].tokens: " in text
    spec["teachers"] = [{"model": "no/such/model/anywhere"}]
    with pytest.raises(InputError, match=r"teachers\[0\]: no directory no/such/model/anywhere"):
        dag_of(parse_sweep(spec))


def test_a_size_that_the_tokenizer_does_not_have_is_refused(spec: dict[str, Any]) -> None:
    spec["corpus"] = spec["corpus"] | {"vocab": 400}
    with pytest.raises(InputError, match=r"corpus.vocab: 400, but .* has 300 entries; remove 'vocab'"):
        dag_of(parse_sweep(spec))
    spec["corpus"]["vocab"] = 300
    assert dag_of(parse_sweep(spec)).steps[0].shape.vocab == 300


def test_a_student_ends_its_documents_as_its_teacher_does(save: Callable[..., Path], tmp_path: Path) -> None:
    """The end-of-text token is where the teacher's tokenizer has it, not where one of ours would."""
    tokenizer = json.loads((save(made("Llama")) / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    old = next(token for token, number in ids.items() if number == 17)
    ids["<|endoftext|>"], ids[old] = 17, 0
    tokenizer["added_tokens"][0]["id"] = 17
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    student = Decoder(shape_for(3000, vocab=VOCAB, context=32, aspect_ratio=32))
    out = tmp_path / "student"
    out.mkdir()
    save_model(student, folder, out)
    config = json.loads((out / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (17, 17)
    assert shape_of(config) == student.shape


def test_a_hub_is_asked_for_a_commit_and_for_no_code(
    spec: dict[str, Any], llama: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub stood in for: what is fetched is JSON when planning, safetensors when training, and by commit."""
    import huggingface_hub

    asked: list[tuple[str, str | None, list[str]]] = []
    here = shutil.copytree(llama, tmp_path / ("c" * 40))

    def fetch(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns))
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    spec["teachers"] = [{"model": "some/llama", "revision": "main"}]
    spec["corpus"]["tokenizer"] = "some/llama"
    evaluate, _ = dag_of(parse_sweep(spec)).steps
    assert evaluate.label == "evaluate 15.5K some/llama"
    assert not any("safetensors" in pattern for _, _, patterns in asked for pattern in patterns)
    assert ("some/llama", "main", ["*.json"]) in asked
    run_step(Store(tmp_path / "store"), evaluate)
    assert asked[-1] == ("some/llama", "c" * 40, ["*.json", "*.safetensors"])


def test_a_hub_that_cannot_be_reached_is_named(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fetch(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    spec["teachers"] = [{"model": "some/llama"}]
    with pytest.raises(InputError, match=r"the download from the hub failed \(no route to host\)"):
        dag_of(parse_sweep(spec))
