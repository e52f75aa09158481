"""The face that a notebook uses: load, plan, run, and read what a store holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeps
from scaling.errors import InputError
from sweeps.estimate import cost
from sweeps.estimate.probes import precision_probe


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans probe this machine; what they find does not matter here."""
    monkeypatch.setattr(cost, "PROBE_SECONDS", 1e-3)
    monkeypatch.setattr(precision_probe, "WINDOW_SECONDS", 0.0)


def test_a_store_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a sweep store"):
        sweeps.status(tmp_path)


def test_changes_reach_the_spec() -> None:
    assert sweeps.load("quickstart", ["name=other"]).default_store == "runs/other"


def test_a_sweep_is_loaded_from_a_dictionary_a_path_and_text_alike(
    small_spec: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_spec))
    steps = [{step.id for step in sweeps.load(spec).dag.steps} for spec in (small_spec, path, str(path))]
    assert steps[0] == steps[1] == steps[2]
    with pytest.raises(InputError, match=r"spec: 1 wrong\n.*nam: no such field; did you mean 'name'"):
        sweeps.load({**small_spec, "nam": "x"})


def test_a_sweep_is_planned_run_and_read(small_spec: dict[str, Any], tmp_path: Path, own_cache: Path) -> None:
    store = tmp_path / "store"
    sweep = sweeps.load(small_spec | {"teachers": [], "students": []})
    plan = sweep.plan(store, devices=1)
    assert not store.exists()
    frame = plan.to_frame()
    assert list(frame["step"]) == [step.id for step in sweep.dag.steps]
    assert frame["flops"].sum() == pytest.approx(plan.to_dict()["flops"])
    assert "2 steps of 2 asked" in str(plan)
    assert "2 steps of 2 asked" in plan._repr_html_()
    assert plan.plot().axes
    seen = []
    state = sweep.run(store, executor="inline", watch=seen.append)
    assert state.complete
    assert seen
    assert str(state) == "2 of 2 steps done (2 now)"
    assert "held-out tokens leave a standard error of about" in state.troubles[0]  # of so small a text
    assert str(sweep.run(store)) == "2 of 2 steps done (0 now, 2 were there already)"
    assert len(sweeps.results(store)) == 2
    status = sweeps.status(store)
    assert str(status).startswith("small: 2 done of 2 steps\nno driver is at work\nspent ")
    assert list(status.to_frame()["state"]) == ["done", "done"]
    assert json.loads(json.dumps(status.to_dict()))["store"] == str(store)
    assert status.plot.names() == ["graph", "timeline"]
    assert all(status.plot(name).axes for name in status.plot.names())
    again = sweep.plan(store, devices=1)
    assert again.done == {step.id for step in sweep.dag.steps}
    assert again.left.bill.flops == 0


def test_a_failed_step_is_told_and_blocks_what_needs_it(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    rules = small_spec["training"] | {"learning_rate": 1e9}
    sweep = sweeps.load(small_spec | {"supervised": [], "training": rules})
    state = sweep.run(tmp_path / "store", executor="inline")
    assert not state.complete
    told = str(state).splitlines()
    assert told[0] == "0 of 6 steps done (0 now)"
    assert [line.split()[0] for line in told[1:]] == ["failed"] * 2 + ["blocked"] * 4


def test_a_memory_store_reaches_no_workers(small_spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r'memory of this process, which workers cannot reach.*"inline"'):
        sweeps.load(small_spec).run("memory://elsewhere", executor="process")


def test_an_unknown_executor_is_refused_before_the_store_is_made(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    with pytest.raises(InputError, match="--executor: process, ray, slurm or inline, not 'thread'"):
        sweeps.load(small_spec).run(tmp_path / "store", executor="thread")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("cores", "had"), [(1, 1), (3, 3), (64, 4)])
def test_a_single_step_has_all_cores_that_it_asks_for(
    cores: int, had: int, small_spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executors are no larger than the steps that are left need, which may take several cores each."""

    def refuse(*_: object, cores: int, **__: object) -> None:
        raise InputError(f"{cores} cores")

    monkeypatch.setattr("sweeps.execute.run.executor_for", refuse)
    alone = {name: small_spec[name] for name in ("name", "corpus", "training")}
    grid = [{"params": ["3k"], "tokens": ["32k"]}]
    sweep = sweeps.load(alone | {"supervised": grid, "resources": [{"cpus": 4}]})
    with pytest.raises(InputError, match=f"^{had} cores"):
        sweep.run(tmp_path / "store", executor="process", cores=cores)


def test_an_address_that_the_executor_does_not_use_is_refused(
    small_spec: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--address: auto is a Ray cluster, which --executor process does"):
        sweeps.load(small_spec).run(tmp_path / "store", executor="process", address="auto")


def test_a_cap_holds_in_either_spelling(small_spec: dict[str, Any]) -> None:
    """0.1.0 had it at the top, and wrote nulls for what was not given into stores."""
    then = {"max_flops": "1e15", "caps": {"flops": None, "hours": None}}
    now = sweeps.load(small_spec | {"caps": {"flops": "1e15"}})
    assert sweeps.load(small_spec | then).spec.caps == now.spec.caps.model_copy(update={"hours": None})
    assert sweeps.load(small_spec | {"max_flops": None}).spec.caps.flops is None
    assert sweeps.load("quickstart", ["max_flops=2e15"]).spec.caps.flops == 2e15
    assert {step.id for step in sweeps.load(small_spec).dag.steps} == {step.id for step in now.dag.steps}
    with pytest.raises(
        InputError, match=r"caps.flops and max_flops are the same field; give only caps.flops"
    ):
        sweeps.load(small_spec | {"max_flops": "1e15", "caps": {"flops": "1e15"}})
    below = sweeps.load(small_spec, ["caps.flops=1e6"])
    with pytest.raises(InputError, match=r"caps.flops: the sweep needs about .*above its cap of 1e\+06"):
        below.plan("memory://caps").check_caps()


def test_a_text_that_is_not_there_is_estimated(
    small_spec: dict[str, Any], text_file: Path, own_cache: Path
) -> None:
    """The same FLOPs; tokens to a fifth where the bytes are known; and no word is read or run."""
    read = sweeps.load(small_spec)
    counted = read.plan("memory://text")
    unread = sweeps.load(small_spec, read_text=False)
    guessed = unread.plan("memory://text")
    assert counted.assumed == ()
    assert "read       the text" in str(counted)
    assert guessed.text.estimated
    assert guessed.dag.flops == counted.dag.flops
    assert any("vocabulary assumed 300 until the corpus is read" in text for text in guessed.assumed)
    assert {step.id for step in unread.dag.steps}.isdisjoint(step.id for step in read.dag.steps)
    with pytest.raises(InputError, match="small: it was loaded without its text"):
        unread.run("memory://text", executor="inline")
    halved = sweeps.load(small_spec | {"corpus": small_spec["corpus"] | {"halves": True}}).plan(
        "memory://text"
    )
    assert halved.epochs == pytest.approx(2 * counted.epochs, rel=0.01)
    text_file.unlink()
    with pytest.raises(InputError, match="no file matches"):
        sweeps.load(small_spec)
    lost = sweeps.load(small_spec, read_text=False).plan("memory://text")
    assert not lost.text.known
    assert lost.epochs == 0
    assert "epochs     unknown until the text is read" in str(lost)


def test_the_estimate_of_a_named_text_is_near_and_keeps_ids() -> None:
    read, unread = sweeps.load("quickstart"), sweeps.load("quickstart", read_text=False)
    assert [step.id for step in read.dag.steps] == [step.id for step in unread.dag.steps]
    counted, guessed = read.resolved.text.size, unread.resolved.text.size
    assert guessed.train_tokens == pytest.approx(counted.train_tokens, rel=0.05)
    assert guessed.heldout_tokens == pytest.approx(counted.heldout_tokens, rel=0.05)


def test_a_tokenizer_that_is_not_here_is_assumed(small_spec: dict[str, Any]) -> None:
    small_spec["corpus"] = {"source": "hf:someone/text", "tokenizer": "someone/model", "context": 32}
    (of_text, of_vocab, of_ids) = sweeps.load(small_spec, read_text=False).resolved.assumed
    assert of_text.startswith("the text hf:someone/text is not read: an unknown number of training tokens")
    assert of_vocab.startswith("vocabulary assumed 32,768 until the tokenizer of someone/model is read")
    assert of_ids.startswith("ids of steps change")
    stated = small_spec | {"corpus": small_spec["corpus"] | {"vocab": 50_000}}
    assert sweeps.load(stated, read_text=False).resolved.text.corpus.vocab == 50_000


def test_the_page_of_sweeps_runs_as_it_is_printed(
    tmp_path: Path, text_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its Python, in order, on another text."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api" / "sweeps.md").read_text()
    text_file.rename(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(code, seen)
    assert seen["runs"]["loss"].notna().all()
    assert len(seen["runs"]) == 3
    assert repr(seen["sweep"]).startswith("<LoadedSweep 'tiny': 3 steps, ")
