"""Teachers that a server answers for: their loss, their cache, students of it, and servers that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import Answers, serving
from random_models import VOCAB, made
from tokenizers import Tokenizer

from scaling.errors import InputError
from sweeps import results
from sweeps.dag.expand import Step
from sweeps.data.corpus import planned_tokens, tokens_of
from sweeps.distill.models import Models
from sweeps.distill.teacher import stream_of, target_of
from sweeps.estimate.cost import Throughput
from sweeps.estimate.memory import PROCESS_BYTES, step_memory
from sweeps.execute.step import run_step
from sweeps.pretrained import completions
from sweeps.resolve import dag_of
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


@pytest.mark.parametrize("echo_only", [False, True], ids=["prompt_logprobs", "echo"])
def test_a_served_teacher_is_measured_cached_and_followed(
    spec: dict[str, Any], answers: Answers, tmp_path: Path, echo_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is the model's, its cache the model's likeliest tokens; the key is in no file."""
    answers.echo_only, answers.key, answers.busy = echo_only, "s3cret-key", 2
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
    assert all(isinstance(number, int) for number in answers.requests[-1]["prompt"])
    if echo_only:
        cache = student.logits
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
    source = spec["teachers"][0]["source"]
    ids = [evaluate.id]
    for change in ({"served": "http://elsewhere:8000/v1"}, {"revision": "in bf16"}, {"name": "other"}):
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
        ({"text": '{"choices": []}'}, r"is not that of an OpenAI-style server that scores given tokens"),
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
    monkeypatch.setattr(completions, "REQUEST_SECONDS", 0.0001)
    with pytest.raises(ConnectionError, match=r"does not answer after 6 tries \(.*timed out"):
        run_step(store, step)
    spec["teachers"][0]["source"]["served"] = "http://127.0.0.1:9/v1"
    with pytest.raises(ConnectionError, match="Connection refused") as error:
        run_step(store, steps_of(spec)[0])
    assert ending_of(error.value) is Ending.LOST
    assert store.result(step.id) is None


@pytest.mark.parametrize(
    ("source", "method", "message"),
    [
        ({"served": "ftp://host/v1"}, {}, r"teachers\[0\].*served: 'ftp://host/v1' is no URL of a server"),
        ({"served": "http://me:key@host/v1"}, {}, r"a URL holds no key or password; set DISTLAW_SERVED_KEY"),
        ({"served": "http://host/v1?key=1"}, {}, r"a URL holds no key or password"),
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
