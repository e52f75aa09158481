"""Teachers that a server answers for: their loss, their cache, students of it, and servers that fail."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completions_server import Answers, serving
from random_models import VOCAB, made
from tokenizers import Tokenizer

from scaling.errors import InputError
from sweeps import results
from sweeps.dag.expand import Step
from sweeps.dag.external_shape import ServedModel
from sweeps.data.corpus import planned_tokens, tokens_of
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.distill import served_teacher, teacher
from sweeps.distill.models import Models
from sweeps.distill.teacher import stream_of, target_of
from sweeps.estimate.cost import Throughput
from sweeps.estimate.memory.memory import PROCESS_BYTES, step_memory
from sweeps.estimate.servers import server_lines, server_work, with_servers
from sweeps.execute.steps.step import run_step
from sweeps.pretrained import completions
from sweeps.pretrained.scoring_forms import Echo, NativeGenerate, PromptLogprobs
from sweeps.pretrained.served import PROBE_LENGTH, ScoredBlock, ServedTeacher
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources, resources_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.outcomes import Ending, ending_of
from sweeps.store.store import Store

TOP = 8


@pytest.fixture
def answers(llama: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(completions, "BACKOFF_SECONDS", 0.001)
    model = made("Llama", tie_word_embeddings=False)
    (llama / "model.safetensors").unlink()  # the weights are with the server alone
    return Answers(model, Tokenizer.from_file(str(llama / "tokenizer.json")))


@pytest.fixture
def url(answers: Answers) -> Iterator[str]:
    with serving(answers) as found:
        yield found


@pytest.fixture
def spec(small_spec: dict[str, Any], llama: Path, url: str, own_cache: Path) -> dict[str, Any]:
    corpus = {name: value for name, value in small_spec["corpus"].items() if name != "vocab"}
    return small_spec | {
        "corpus": corpus | {"tokenizer": str(llama)},
        "supervised": [],
        "teachers": [
            {
                "model": str(llama),
                "tokens": "2T",
                "source": {"served": url, "name": "tiny", "revision": "random, in fp32"},
            }
        ],
        "training": {"batch_tokens": 32, "warmup_tokens": 1600},
        "students": [{"params": ["3k"], "tokens": ["16k"]}],
        "methods": [{"logits": "top-k", "top": TOP}],
    }


def steps_of(spec: dict[str, Any]) -> list[Step]:
    return dag_of(parse_sweep(spec)).steps


@pytest.mark.parametrize("kind", ["vllm", "echo", "sglang"])
def test_a_served_teacher_is_measured_cached_and_followed(
    spec: dict[str, Any], answers: Answers, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is the model's, its cache the model's likeliest tokens; the key is in no file."""
    answers.kind, answers.key, answers.busy = kind, "s3cret-key", 2
    monkeypatch.setenv("DISTLAW_SERVED_KEY", answers.key)
    evaluate, cache, student = steps_of(spec)
    store = Store(tmp_path / "store")
    store.create()
    measured = run_step(store, evaluate)
    corpus = tokens_of(evaluate.corpus)
    heldout = torch.from_numpy(corpus.heldout.astype("int64"))
    blocks = heldout[: (len(heldout) - 1) // 32 * 32 + 1].unfold(0, 33, 32)
    with torch.no_grad():
        log_p = answers.model(blocks[:, :-1]).logits.log_softmax(-1)
    loss = -log_p.gather(-1, blocks[:, 1:, None]).double().mean()
    assert measured["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert measured["served"]["server_version"] == "0.16.0"
    assert (measured["served"]["name"], measured["served"]["revision"]) == ("tiny", "random, in fp32")
    assert measured["served"]["tokens_per_second"] > 0
    asked = answers.requests[-1]
    assert all(isinstance(number, int) for number in asked["input_ids" if kind == "sglang" else "prompt"])
    if kind != "vllm":
        return  # the cache below takes as many requests again
    run_step(store, cache)
    data = stream_of(student, planned_tokens(student.corpus, student.corpus_fingerprint))
    numbers = torch.from_numpy(data.seen(student.steps)[:3])
    target = target_of(store, student, corpus, Models(store, student))
    assert target is not None
    inputs = data.read(numbers)[:, :-1]
    with torch.no_grad():
        expected = answers.model(inputs).logits.log_softmax(-1).flatten(0, 1)
    likeliest = expected.topk(TOP)
    rows = target.rows(inputs, numbers)
    found = target.log_probabilities(rows, 1.0)
    torch.testing.assert_close(found[:, :TOP], likeliest.values, rtol=2e-3, atol=2e-3)  # half precision
    rest = (1 - likeliest.values.exp().sum(-1)).log()
    torch.testing.assert_close(found[:, TOP], rest, rtol=2e-3, atol=2e-3)
    asked = len(answers.requests)
    assert run_step(store, student)["loss"] < 9
    assert len(answers.requests) == asked  # a student reads the cache, not the server
    recorded = {
        "spec": {},
        "steps": [each.id for each in (evaluate, cache, student)],
        "setting": student.setting,
    }
    store.write(recorded, "sweep.json")
    (row,) = results(store.root).to_dict("records")
    assert row["teacher_loss"] == measured["loss"]
    for file in Path(store.root).rglob("*"):
        assert not file.is_file() or answers.key.encode() not in file.read_bytes()


def test_identity_cost_and_memory(spec: dict[str, Any], url: str) -> None:
    evaluate, cache, student = steps_of(spec)
    for step in (evaluate, cache, student):
        assert Step.from_json(json.loads(json.dumps(step.as_json()))) == step
    assert (evaluate.flops_to_spend, cache.flops_to_spend) == (0, 0)  # which its server spends
    assert student.flops_by_part()["teacher_reading"] == student.tokens * evaluate.shape.forward_flops
    assert step_memory(evaluate) == PROCESS_BYTES
    one_second_a_token = Throughput([1.0], [1.0], [1.0], [1.0], [1.0], heldout_tokens=10)
    assert [one_second_a_token.seconds(each) for each in (evaluate, cache)] == [0, 0]
    eight_gpus = Resources(gpus=8, from_params=1)
    assert resources_of([cache], [eight_gpus], eight_gpus) == Resources()  # which waits for the server alone
    source = spec["teachers"][0]["source"]
    ids = [evaluate.id]
    moved = {"served": "http://elsewhere:8000/v1", "tokens_per_second": "100K"}
    for change in (moved, {"revision": "in bf16"}, {"name": "other"}):
        spec["teachers"][0]["source"] = source | change
        ids.append(steps_of(spec)[0].id)
    assert ids[0] == ids[1]  # a server may move
    assert len(set(ids)) == 3
    spec["training"] |= {"precision": "bf16"}
    spec["teachers"][0]["source"] = source
    assert steps_of(spec)[0].id == ids[0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"key": "other"},
            r"401: Unauthorized; the key in the environment variable DISTLAW_SERVED_KEY is not set",
        ),
        ({"name": "big"}, r"404: The model `tiny` does not exist.; it has the models big; set source.name"),
        ({"max_logprobs": 0}, r"400: Requested more than max_logprobs 0. It must score .*--max-logprobs"),
        (
            {"vocabulary": "shifted"},
            r"its vocabulary is not that of the corpus: .* are other strings \(\d+ is '",
        ),
        (
            {"vocabulary": "larger"},
            r"is not that of the corpus: .*, which the corpus's tokenizer does not have",
        ),
        ({"text": "no JSON"}, r"answers with no JSON"),
        ({"text": '{"choices": []}'}, r"is not that of a server that scores given tokens"),
        (
            {"kind": "llama.cpp"},
            r"is not that of a server that scores .*; llama.cpp's server and Ollama score no",
        ),
    ],
)
def test_a_server_that_refuses_is_told_in_a_sentence(
    spec: dict[str, Any],
    answers: Answers,
    tmp_path: Path,
    fault: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault.get("vocabulary") == "shifted":
        decode = answers.tokenizer.decode
        answers.tokenizer = type(
            "Shifted", (), {"decode": lambda _, n, **how: decode([n[0] // 2 + 9], **how)}
        )()
    elif fault.get("vocabulary") == "larger":
        answers.model = made("Llama", vocab_size=VOCAB + 100, tie_word_embeddings=False)
    elif text := fault.get("text"):
        monkeypatch.setattr(json, "loads", _instead_of(json.loads, text))
    else:
        for name, value in fault.items():
            setattr(answers, name, value)
    store = Store(tmp_path / "store")
    store.create()
    with pytest.raises(InputError, match=message) as error:
        run_step(store, steps_of(spec)[0])
    assert "teacher tiny served at http://127.0.0.1" in str(error.value)


def test_a_server_that_is_gone_or_slow_or_busy_is_tried_again_later(
    spec: dict[str, Any], answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.create()
    step = steps_of(spec)[0]
    answers.busy = 1000
    with pytest.raises(
        ConnectionError, match=r"does not answer after 6 tries \(it answers 503: overloaded\)"
    ):
        run_step(store, step)
    assert len(answers.requests) == completions.TRIES
    answers.busy = 0
    source = spec["teachers"][0]["source"]
    elsewhere = spec | {
        "teachers": [
            spec["teachers"][0] | {"source": source | {"served": source["served"].replace("/v1", "/else/v1")}}
        ]
    }
    with pytest.raises(InputError, match=r"404: .*; check source.served"):
        run_step(store, steps_of(elsewhere)[0])
    monkeypatch.setattr(completions, "REQUEST_SECONDS", 0.0001)
    with pytest.raises(ConnectionError, match=r"does not answer after 6 tries \(.*timed out"):
        run_step(store, step)
    spec["teachers"][0]["source"]["served"] = "http://127.0.0.1:9/v1"
    with pytest.raises(ConnectionError, match="Connection refused") as error:
        run_step(store, steps_of(spec)[0])
    assert ending_of(error.value) is Ending.LOST
    assert store.result(step.id) is None


def test_what_a_server_has_answered_is_kept_when_it_is_gone(
    spec: dict[str, Any], answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation and cache go on at the shard where they were; top-p keeps few of the likeliest tokens."""
    monkeypatch.setattr(served_teacher, "blocks_of_shard", lambda blocks: 10)
    monkeypatch.setattr(teacher, "blocks_of_shard", lambda blocks: 10)
    spec["methods"] = [{"logits": "top-p", "top_p": 0.02, "top": TOP}]
    evaluate, cache, student = steps_of(spec)
    store = Store(tmp_path / "store")
    store.create()
    for step, folder in ((evaluate, "scores"), (cache, "logits")):
        answers.requests.clear()
        answers.gone_after = 30
        with pytest.raises(ConnectionError, match="what it has answered is kept, and the step goes on there"):
            run_step(store, step)
        answers.gone_after = None
        there = len(store.names(step.id, folder))
        assert there >= 1
        answers.requests.clear()
        run_step(store, step)
        blocks = cache.steps if step is cache else evaluate.foreign.heldout_tokens // 32  # type: ignore[union-attr]
        probes = 1 + -(-VOCAB // PROBE_LENGTH)
        assert len(answers.requests) == probes + blocks - 10 * there
    corpus = tokens_of(evaluate.corpus)
    data = stream_of(student, planned_tokens(student.corpus, student.corpus_fingerprint))
    numbers = torch.from_numpy(data.seen(student.steps))
    target = target_of(store, student, corpus, Models(store, student))
    assert target is not None
    inputs = data.read(numbers)[:, :-1]
    with torch.no_grad():
        expected = answers.model(inputs).logits.log_softmax(-1).flatten(0, 1)
    p = target.log_probabilities(target.rows(inputs, numbers), 1.0)[:, :TOP].exp()
    likeliest = expected.topk(TOP).values.exp()
    kept = (likeliest.cumsum(-1) - likeliest < 0.02).sum(-1)
    assert 1 <= kept.min() < TOP
    torch.testing.assert_close((p > 0).sum(-1), kept)
    torch.testing.assert_close(p[:, 0], likeliest[:, 0], rtol=2e-3, atol=2e-3)


def test_untrained_rows_of_a_padded_output_are_cut(
    spec: dict[str, Any], answers: Answers, tmp_path: Path, llama: Path
) -> None:
    """Tokens beyond the tokenizer's have the places of others, of no probability, if they are unlikely."""
    served = ServedModel(url="http://nowhere/v1", name="tiny", revision="")
    found = ServedTeacher(served, ExternalTokenizer.read(llama))
    tokens = np.array([[7, VOCAB + 1, 3], [1, 0, 2]])
    log_p = np.log(np.array([[0.5, 0.005, 0.003], [0.4, 0.3, 0.2]], np.float32))
    cut = found._without_padding(ScoredBlock(tokens, log_p, log_p[:, 0]))
    assert cut.tokens.tolist() == [[7, 3, 0], [1, 0, 2]]
    expected = np.array([[0.5 / 0.995, 0.003 / 0.995, 0], [0.4, 0.3, 0.2]], np.float32)
    np.testing.assert_allclose(np.exp(cut.log_p), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(cut.own), [0.5 / 0.995, 0.4], rtol=1e-5)
    log_p[0, 1] = np.log(0.02)
    with pytest.raises(InputError, match=rf"it expects token {VOCAB + 1}, and the corpus's tokenizer has"):
        found._without_padding(ScoredBlock(tokens, log_p, log_p[:, 0]))


def test_forms_are_read_as_servers_write_them() -> None:
    """The prompt's own token beside the likeliest, null at first, -9999 for minus infinity, no strings."""
    prompt = [5, 9, 5]
    vllm = {
        "choices": [
            {
                "prompt_logprobs": [
                    None,
                    {
                        "9": {"logprob": -4.5, "rank": 31, "decoded_token": "a"},
                        "2": {"logprob": -0.1, "rank": 1, "decoded_token": "\ufffd"},
                    },
                    {"5": {"logprob": -9999.0, "rank": 300, "decoded_token": ""}},
                ]
            }
        ]
    }
    assert PromptLogprobs().positions(vllm, prompt) == [{9: -4.5, 2: -0.1}, {5: -math.inf}]
    assert list(PromptLogprobs().strings(vllm, prompt)) == [(9, "a"), (2, "\ufffd"), (5, "")]
    said = {
        "tokens": ["token_id:5", "token_id:9", "token_id:5", "token_id:1"],
        "token_logprobs": [None, -4.5, -0.2, -1.0],
        "top_logprobs": [
            None,
            {"token_id:2": -0.1},
            {"token_id:5": -0.2, "token_id:2": -2.0},
            {"token_id:1": -1},
        ],
    }
    echoed = {"choices": [{"logprobs": said}]}
    assert Echo().positions(echoed, prompt) == [{9: -4.5, 2: -0.1}, {5: -0.2, 2: -2.0}]
    sglang = {
        "meta_info": {
            "input_token_logprobs": [[None, 5, None], [-4.5, 9, None], [-0.2, 5, None]],
            "input_top_logprobs": [None, [[-0.1, 2, None]], [[-0.2, 5, None]]],
        }
    }
    assert NativeGenerate().positions(sglang, prompt) == [{9: -4.5, 2: -0.1}, {5: -0.2}]
    for form, answer in ((PromptLogprobs(), vllm), (Echo(), echoed), (NativeGenerate(), sglang)):
        with pytest.raises(
            ValueError, match=r"positions of a prompt of 4 tokens|other tokens than the prompt's"
        ):
            form.positions(answer, [*prompt, 5])
    said["tokens"] = ["a", " b", "a", "c"]
    with pytest.raises(ValueError, match="tokens named by strings"):
        Echo().positions(echoed, prompt)


def test_a_plan_says_how_long_the_server_takes(spec: dict[str, Any], tmp_path: Path) -> None:
    """At a speed that is stated, else measured by the evaluation, else not counted."""
    store = Store(tmp_path / "store")
    dag = dag_of(parse_sweep(spec))
    evaluate, cache, student = dag.steps
    work = server_work(dag, store)
    assert work.keys() == {evaluate.id, cache.id}
    (line,) = server_lines(work.values())
    assert "tiny scores" in line
    assert line.endswith("its time not counted: set source.tokens_per_second")
    store.create()
    store.write({}, "sweep.json")
    measured = {"loss": 3.0, "served": {"tokens_per_second": 80.0}}
    assert store.commit(evaluate.id, {"id": evaluate.id, "step": evaluate.as_json()} | measured)
    work = server_work(dag, store)
    seconds = with_servers(lambda _: 1.0, work)
    assert [seconds(cache), seconds(student)] == [1 + cache.tokens / 80, 1]
    short = replace(dag, steps=(evaluate, replace(cache, text_tokens=800), student))
    assert server_work(short, store)[cache.id].seconds == 10  # each token of the text once
    (line,) = server_lines(work.values())
    assert line.endswith(f"at 80 tokens/s, measured by step {evaluate.id[:8]}")
    spec["teachers"][0]["source"]["tokens_per_second"] = "40"
    (line,) = server_lines(server_work(dag_of(parse_sweep(spec)), store).values())
    assert line.endswith("at 40 tokens/s, stated in the spec")


@pytest.mark.parametrize(
    ("source", "method", "message"),
    [
        ({"served": "ftp://host/v1"}, {}, r"teachers\[0\].*served: 'ftp://host/v1' is no URL of a server"),
        ({"served": "http://me:key@host:99999/v1"}, {}, r"SERVED_KEY in the environment instead$"),
        ({"served": "http://host/v1?key=1"}, {}, r"a URL holds no key or password; .* instead$"),
        ({"revision": ""}, {}, r"revision"),
        (
            {},
            {"logits": "online"},
            r"methods\[0\].logits: online, but a served teacher writes its likeliest tok",
        ),
        (
            {},
            {"logits": "online", "cross_entropy": 1, "source": {"by": "teacher"}},
            r"methods\[0\].source: teacher, but a served teacher is asked",
        ),
        (
            {},
            {"initial_weights": "teacher-copy"},
            r"methods\[0\].initial_weights: it needs the teacher itself",
        ),
    ],
)
def test_a_spec_that_a_server_cannot_answer_is_refused(
    spec: dict[str, Any], source: dict[str, Any], method: dict[str, Any], message: str
) -> None:
    spec["teachers"][0]["source"] |= source
    top = {} if method.get("logits") else {"top": TOP}
    spec["methods"] = [{"logits": "top-k"} | top | method]
    with pytest.raises(InputError, match=message):
        parse_sweep(spec)


def test_a_precision_of_a_served_teacher_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a server multiplies in its own"):
        parse_sweep(spec | {"teachers": [spec["teachers"][0] | {"precision": "bf16"}]})


def _instead_of(loads: Callable[[Any], Any], text: str) -> Callable[..., Any]:
    """Return ``json.loads`` that finds ``text`` in the place of a completion."""

    def found(data: Any, **how: Any) -> Any:
        is_completion = isinstance(data, bytes) and b'"text_completion"' in data
        return loads(text.encode() if is_completion else data, **how)

    return found
