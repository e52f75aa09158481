"""Parts of methods from a module outside the repository: identity, refusals, states, heads, the whole command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from distlaw.cli import main
from scaling.errors import InputError
from sweeps import results
from sweeps.dag.expand import Dag, Step
from sweeps.data.batches import Batches
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.execute.budget.budget import flops_recorded
from sweeps.model.decoder import Decoder
from sweeps.model.hidden_states import hidden_states
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import load_object, version_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train import loop
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "docs" / "samples" / "my_methods.py"
STEPS, CONTEXT, V = 24, 16, 300
TOKENS = (np.arange(6_000) ** 2 % 299).astype(np.uint16)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module of the documentation, in a folder of its own that is on the path; forgotten afterwards."""
    folder = tmp_path / "modules"
    folder.mkdir()
    shutil.copy(SAMPLE, folder)
    monkeypatch.syspath_prepend(folder)
    yield folder / "my_methods.py"
    forget()


def forget() -> None:
    """Have these modules imported anew."""
    for name in ("my_methods", "broken", "other_methods"):
        sys.modules.pop(name, None)
    for cached in (load_object, version_of, parts_of):
        cached.cache_clear()


@contextmanager
def elsewhere(module: Path) -> Iterator[None]:
    """In the block this process is one of a machine where the module is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [each for each in sys.path if each != str(module.parent)])
        forget()
        yield


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One small student of one teacher, 500 steps of one block."""
    return {
        "name": "own",
        "corpus": {"source": str(text_file), "vocab": V, "context": CONTEXT, "heldout": 0.1},
        "training": {"batch_tokens": CONTEXT, "warmup_tokens": 50 * CONTEXT},
        "teachers": [{"params": ["7k"], "tokens": ["8k"]}],
        "students": [{"params": ["3k"], "tokens": ["8k"]}],
    }


def use(name: str, **options: Any) -> dict[str, Any]:
    return {"use": f"my_methods:{name}", **options}


def dag(spec: dict[str, Any], *methods: Any, **more: Any) -> Dag:
    return dag_of(parse_sweep(spec | {"methods": list(methods)} | more))


def student(spec: dict[str, Any], method: Any, **more: Any) -> Step:
    return next(step for step in dag(spec, method, **more).steps if step.kind == "distil")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (
            {"divergence": {"use": "nowhere:X"}},
            "no module 'nowhere' can be imported here; install it, or put",
        ),
        ({"divergence": "my_methods:Hellinger"}, "another module is written {use: my_methods:Hellinger}"),
        ({"divergence": use("Helinger")}, "defines no 'Helinger'; did you mean 'Hellinger'?"),
        (
            {"divergence": {"use": "Hellinger"}},
            "'Hellinger' is not MODULE:NAME, such as my_methods:Hellinger",
        ),
        ({"divergence": {"use": "broken:X"}}, "importing broken failed: ZeroDivisionError: division by zero"),
        ({"divergence": {"use": "math:pi"}}, "math:pi is a float, not a subclass of an interface"),
        ({"divergence": {"use": "sweeps.methods:Divergence"}}, "is the interface itself; name a subclass"),
        (
            {"divergence": use("Sharpened")},
            "is a Target, which goes under target; divergence takes a Divergence",
        ),
        ({"divergence": use("Hellinger", scael=2)}, "no option 'scael'; it has scale"),
        ({"divergence": use("Hellinger", scale="much")}, "scale: input should be a valid number"),
        ({"divergence": {"use": "other_methods:Bare"}}, "abstract"),
        (
            {"use": "my_methods:Hellinger"},
            "is not a dictionary of a method's fields; write divergence: {use:",
        ),
        ({"divergence": use("Hellinger"), "beta": 0.1}, "my_methods:Hellinger does not read it, only jensen"),
        (
            {"divergence": use("Hellinger"), "taid": {}},
            "taid: it sets its pace by forward-kl, not my_methods:H",
        ),
        (
            {"target": use("Sharpened"), "logits": "cached"},
            "my_methods:Sharpened cannot be cached; set online",
        ),
        (
            {"target": use("Sharpened"), "delta": {}, "init": {"by": "base"}},
            "target: my_methods:Sharpened takes the place of delta; remove one",
        ),
        ({"source": use("Backwards"), "logits": "top-k"}, "text of my_methods:Backwards is not the data"),
        ({"source": use("Drifting"), "pretraining": 1}, "pretraining: it goes beside text of the student"),
        ({"other_teachers": [0]}, "other_teachers: no part of another module reads them"),
        ({"hooks": [use("PullToAverage")], "other_teachers": [1]}, "no teacher has number 1; the last is 0"),
        (
            {"initial_weights": use("Halved", version="0" * 8)},
            "has changed since this was planned (version 0000",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    spec: dict[str, Any], module: Path, method: Any, reason: str
) -> None:
    module.with_name("broken.py").write_text("X = 1 / 0\n")
    module.with_name("other_methods.py").write_text(
        "from sweeps.methods import Divergence\n\n\nclass Bare(Divergence):\n    pass\n"
    )
    with pytest.raises(InputError) as found:
        parse_sweep(spec | {"methods": [{}, method]})
    assert "methods[1]" in str(found.value)
    assert reason in str(found.value)


def test_heads_are_not_compiled(spec: dict[str, Any], module: Path) -> None:
    rules = {"training": spec["training"] | {"compile": True}}
    with pytest.raises(InputError, match=r"methods\[0\].auxiliary_losses: .* set training.compile: false"):
        parse_sweep(spec | rules | {"methods": [{"auxiliary_losses": [use("MatchLayer")]}]})


def test_identity_is_name_options_and_version(
    spec: dict[str, Any], module: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, own = student(spec, {}), student(spec, {"divergence": use("Hellinger")})
    assert student(spec, {"divergence": use("Hellinger", scale=1.0)}).id == own.id  # its default
    assert student(spec, {"use": "my_methods:hellinger_kd"}).id not in (own.id, plain.id)
    assert student(spec, {"divergence": use("Hellinger", scale=2)}).id != own.id
    record = json.loads(json.dumps(own.as_json()))
    assert Step.from_json(record) == own
    assert Step.from_json(record).id == own.id
    assert own.method is not None
    assert own.method.name == "Hellinger"

    def reloaded(text: str) -> str:
        module.write_text(text)
        forget()
        return student(spec, {"divergence": use("Hellinger")}).id

    text = module.read_text()
    assert reloaded(f"{text}\n# a comment\n") != own.id  # the source as it is
    declared = text.replace("    scale: float", '    version = "1"\n    scale: float')
    one = reloaded(declared)
    assert reloaded(f"{declared}\n# a comment\n") == one  # its author's promise
    with pytest.raises(ValueError, match="has changed since this was planned"):
        parts_of(Step.from_json(record).method).divergence  # type: ignore[arg-type]  # noqa: B018


def test_other_teachers_are_a_part_of_the_identity(
    spec: dict[str, Any], module: Path, own_cache: Path
) -> None:
    more = {"teachers": [*spec["teachers"], {"params": ["3k"], "tokens": ["8k"]}]}
    more["students"] = [spec["students"][0] | {"teachers": [0]}]
    loss = {"auxiliary_losses": [use("MatchLayer")]}
    both, one = student(spec, loss | {"other_teachers": [1]}, **more), student(spec, loss, **more)
    assert both.id != one.id
    assert len(both.other_teachers) == 1
    assert both.other_teachers[0] in both.needs
    assert Step.from_json(json.loads(json.dumps(both.as_json()))) == both
    several = more | {"teachers": [*spec["teachers"], {"params": ["3k", "7k"], "tokens": ["8k"]}]}
    with pytest.raises(InputError, match=r"other_teachers: teachers\[1\] are 2 models; name entries"):
        student(spec, loss | {"other_teachers": [1]}, **several)


def test_heads_count_in_flops_and_not_in_size(spec: dict[str, Any], module: Path, own_cache: Path) -> None:
    plain = student(spec, {})
    matched = student(spec, {"auxiliary_losses": [use("MatchLayer")]})
    assert matched.teacher is not None
    assert matched.shape.params == plain.shape.params
    head = 3 * 2 * matched.shape.width * matched.teacher.shape.width
    own, without = matched.flops_by_part(), plain.flops_by_part()
    assert own["training"] - without["training"] == pytest.approx(head * matched.tokens)
    read = matched.teacher.shape.forward_flops * matched.tokens
    assert own["teacher_reading"] - without["teacher_reading"] == pytest.approx(read)
    assert matched.flops_to_spend - plain.flops_to_spend == pytest.approx(head * matched.tokens + read)
    alone = student(spec, {"auxiliary_losses": [use("MatchLayer")], "token_loss_weight": 0})
    assert alone.flops_by_part()["teacher_reading"] == pytest.approx(read)


class Killed(Exception):
    """At some point of a run."""


def teacher_of(step: Step) -> Decoder:
    made = Decoder(step.shape)
    made.initialize(7)
    return made.eval().requires_grad_(False)


def started(step: Step, checkpoints: Checkpoints | None = None) -> tuple[Run, Online]:
    """A short run of the method of ``step``, with a teacher that was never trained."""
    assert step.teacher is not None
    target = Online(teacher_of(step.teacher))
    models = Models(Store("memory://own"), step, {step.teacher.id: target})
    rules = step.training.model_copy(update={"batch_tokens": 4.0 * CONTEXT})
    recipe = RunRecipe(shape=step.shape, steps=STEPS, training=rules, seed=0, method=step.method)
    return Run(recipe=recipe, checkpoints=checkpoints, models=models), target


def finished(step: Step, checkpoints: Checkpoints | None = None, killed_at: int | None = None) -> Run:
    run, target = started(step, checkpoints)

    def report(run: Run) -> None:
        if run.done == killed_at:
            raise Killed

    for _, error in train_together(
        [run], TOKENS, data_seed=3, target=target, report=report, checkpoint_seconds=0
    ):
        assert error is None
    return run


def state_of(run: Run) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in run.state().items() if name != "/pieces and seconds"}


STATEFUL = {
    "hook": {"hooks": [use("PullToAverage")]},
    "source": {"source": use("Drifting")},
    "head": {"auxiliary_losses": [use("MatchLayer")]},
    "all": {
        "divergence": use("Hellinger"),
        "source": use("Drifting"),
        "auxiliary_losses": [use("MatchLayer", layer=0), use("MatchLayer")],
        "hooks": [use("PullToAverage")],
    },
}


@pytest.mark.parametrize("name", STATEFUL)
def test_killed_and_resumed_a_run_ends_in_the_same_bits(
    name: str,
    spec: dict[str, Any],
    module: Path,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    step, checkpoints = student(spec, STATEFUL[name]), Checkpoints(Store(tmp_path / "store"), "run")
    whole = state_of(finished(step))
    for kill in (2, 13):
        with pytest.raises(Killed):
            finished(step, checkpoints, kill)
    again = state_of(finished(step, checkpoints))
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    plain = state_of(finished(student(spec, {})))
    assert any(not torch.equal(plain[key], whole[key]) for key in plain if "/" not in key)
    if name in ("head", "all"):
        saved = checkpoints.latest()
        assert saved is not None
        assert {"/heads/auxiliary_losses.0/0.weight", "/heads/auxiliary_losses.0/0.bias"} <= saved[1].keys()
    if name == "hook":
        assert "/hooks.0/model.norm.weight" in whole


def test_heads_learn_and_stay_out_of_the_model(spec: dict[str, Any], module: Path, own_cache: Path) -> None:
    step = student(spec, {"auxiliary_losses": [use("MatchLayer")], "token_loss_weight": 0})
    begun, run = started(step)[0], finished(step)
    head, before = run.method.heads["auxiliary_losses.0"], begun.method.heads["auxiliary_losses.0"]
    assert not torch.equal(head[0].weight, before[0].weight)  # type: ignore[index]
    assert run.model.state_dict().keys() == Decoder(step.shape).state_dict().keys()
    assert run.loss < 0.9 * _matching_loss(begun, step)


def _matching_loss(run: Run, step: Step) -> float:
    """The whole loss at the beginning, written out: the mean over positions of the error of the head."""
    assert step.teacher is not None
    blocks = Batches(TOKENS, context=CONTEXT, batch=4, seed=3)[0]
    own = hidden_states(run.model, blocks[:, :-1], [-1])[1][0]
    theirs = hidden_states(teacher_of(step.teacher), blocks[:, :-1], [-1])[1][0]
    matched = run.method.heads["auxiliary_losses.0"][0](own)  # type: ignore[index]
    error = (matched - theirs).square().mean().item()
    loss = run._backward(run.method.batch(run.model, 0, blocks, None, None), None)
    assert loss.item() == pytest.approx(error, rel=1e-5)
    return float(error)


@pytest.mark.parametrize("pieces", [2, 3])
@pytest.mark.parametrize(
    "method",
    [{"target": use("Sharpened", ignored_token=5)}, {"auxiliary_losses": [use("MatchLayer")]}],
    ids=["mask", "head"],
)
def test_in_pieces_gradients_are_those_of_the_whole(
    method: Any, pieces: int, spec: dict[str, Any], module: Path, own_cache: Path
) -> None:
    """A mask counts over the whole batch, however it is split; masked positions teach nothing."""
    found, step = [], student(spec, method)
    blocks = torch.randint(9, (5, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    for number in (1, pieces):
        run = started(step)[0]
        target = parts_of(run.recipe.method).target.open(run.models) or _dense(run)  # type: ignore[arg-type]
        run.pieces = number
        batch = run.method.batch(run.model, 0, blocks, target.rows(blocks[:, :-1], torch.arange(5)), target)
        batch = run.method.weighted(batch, torch.arange(5), run.rules.first)
        loss = run._backward(batch, target)
        found.append((loss, run.optimizer.gradients.clone()))
        if batch.weights is not None:
            assert batch.weights.mean().item() == pytest.approx(1.0)
            assert not batch.weights[blocks[:, :-1] == 5].any()
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


def _dense(run: Run) -> Any:
    from sweeps.distill.targets import Dense

    assert run.recipe.method is not None
    assert run.models is not None
    return Dense(parts_of(run.recipe.method).target, run.models)


def test_hidden_states_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sweeps.pretrained.load import wrap

    config = Qwen3Config(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        tie_word_embeddings=True,
    )
    theirs = Qwen3ForCausalLM(config).eval()
    tokens = torch.arange(24).view(2, 12)
    expected = theirs(tokens, output_hidden_states=True).hidden_states
    features, found = hidden_states(wrap(theirs, 60), tokens, [0, 1, -1])
    for one, other in zip(found, (expected[0], expected[1], expected[-1]), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(features, expected[-1])
    with pytest.raises(InputError, match="layer 3: this model has hidden states 0 to 2"):
        hidden_states(wrap(theirs, 60), tokens, [3])


def test_layers_of_our_models_are_numbered_alike(spec: dict[str, Any]) -> None:
    model = Decoder(student(spec, {}).shape)
    model.initialize(0)
    tokens = torch.arange(CONTEXT)[None]
    features, found = hidden_states(model, tokens, [0, -1])
    assert torch.equal(found[0], model.model.embed_tokens(tokens))
    assert torch.equal(found[1], features)
    assert torch.equal(features, model.model(tokens))


def command(folder: Path, *arguments: str, module: Path, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(module.parent)]),
        "DISTLAW_CACHE": str(folder / "cache"),
        "DISTLAW_LEASE_SECONDS": "3",
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "distlaw", "sweep", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def test_the_whole_command_runs_parts_of_another_module(
    spec: dict[str, Any],
    module: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every kind of part by ``sweep run`` in local processes; killed and run again in the same bits."""
    everything = {**STATEFUL["all"], "metrics": [use("SentenceLoss")], "initial_weights": use("Halved")}
    before = {"target": use("Sharpened", power=1.5), "source": use("Backwards"), "divergence": "reverse-kl"}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(spec | {"methods": [everything, before]}))
    run = ("run", str(file), "--executor", "process", "--cores", "1", "--store")

    monkeypatch.setattr(sys, "argv", ["distlaw", "sweep", "plan", str(file)])
    with elsewhere(module), pytest.raises(SystemExit, match="2"):
        main()
    assert "no module 'my_methods' can be imported here" in capsys.readouterr().err

    done(command(tmp_path, *run, str(tmp_path / "whole"), module=module))
    with elsewhere(module):
        table = results(tmp_path / "whole", metrics=True).set_index("method")
    (own,) = [name for name in table.index if isinstance(name, str) and name.startswith("Hellinger")]
    (other,) = [name for name in table.index if isinstance(name, str) and "Backwards" in name]
    assert table.loc[own, "sentence_loss"] > 0
    assert np.isnan(table.loc[other, "sentence_loss"])
    assert table.loc[other, "blocks_at_hand"] > 100
    assert np.isnan(table.loc[own, "blocks_at_hand"])
    assert table["loss"].map(np.isfinite).all()
    assert table.loc[own, "params"] == table.loc[other, "params"]

    broken = tmp_path / "broken"
    (step,) = [each for each in _results(tmp_path / "whole") if "sentence_loss" in str(each)]
    killed = command(tmp_path, *run, str(broken), module=module, DISTLAW_CHECKPOINT_SECONDS="0.05")
    _wait(lambda: bool(list(broken.glob(f"{step['id']}/checkpoints/*/manifest.json"))), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (broken / step["id"] / "result.json").exists()
    done(command(tmp_path, *run, str(broken), module=module))
    whole, again = ({each["id"]: each for each in _results(tmp_path / name)} for name in ("whole", "broken"))
    assert whole.keys() == again.keys()
    for name in whole:
        for field in ("loss", "weights_sha256", "yardsticks"):
            assert again[name].get(field) == whole[name].get(field)


def _results(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(store.glob("*/result.json"))]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_results_are_read_where_the_module_is_not(
    spec: dict[str, Any], module: Path, own_cache: Path
) -> None:
    """A table is read on another machine: the record of a method says what it was."""
    step = student(spec, {"use": "my_methods:hellinger_kd", "hooks": [use("PullToAverage")]})
    record = json.loads(json.dumps(step.as_json()))
    with elsewhere(module):
        again = Step.from_json(record)
        assert (again.id, again.label, again.setting) == (step.id, step.label, step.setting)
        assert isinstance(again.method, Method)
        assert again.method.name.startswith("hellinger_kd")
        with pytest.raises(ValueError, match="no module 'my_methods' can be imported here"):
            parts_of(again.method).hooks  # noqa: B018


def test_cost_of_a_step_whose_module_is_missing_is_not_called_damage(
    spec: dict[str, Any], module: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a result its cost is known; without one the message says what to install, never to delete."""
    step = student(spec, {"auxiliary_losses": [use("MatchLayer")]})
    store = Store(tmp_path / "store")
    store.write(step.as_json(), step.id, "step.json")
    with elsewhere(module):
        with pytest.raises(InputError, match="no module 'my_methods' can be imported here") as refused:
            flops_recorded(store, step.id)
        assert "delete" not in str(refused.value)
        monkeypatch.setattr(store, "result", lambda _: {"flops": {"total": 7.0}})
        assert flops_recorded(store, step.id) == 7.0
