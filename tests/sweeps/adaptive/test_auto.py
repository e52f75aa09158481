"""Adaptive sweeps: rounds in the store, limits, interruption anywhere, two drivers, failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sweeps
from distlaw.cli import app
from scaling import EffectiveTokensLaw, InputError, Question, SupervisedLaw
from sweeps.adaptive import auto
from sweeps.adaptive.auto import AdaptiveSweep, Limits
from sweeps.adaptive.next_runs import known_runs
from sweeps.adaptive.rounds import Round, read_rounds, record_round
from sweeps.api import LoadedSweep
from sweeps.dag.expand import Dag
from sweeps.dag.step import Step
from sweeps.execute.run import Where
from sweeps.execute.state import State
from sweeps.execute.steps.provenance import record_sweep
from sweeps.store.store import Store

LAW = SupervisedLaw(E=1.3, A=70.0, B=7300.0, alpha=0.36, beta=0.645, gamma=0.58)
DISTILLED = EffectiveTokensLaw(k=1.0, q=7.0, eps=0.01)
QUESTION = Question(student_params=56e3, budget=3e12, scenarios=("best_case",))  # type: ignore[arg-type]
LIMITS = Limits(regret=1e-4, rounds=2)
TWO_ROUNDS = Limits(regret=-1.0, rounds=2)


def loss_of(step: Step) -> float:
    """Loss of a run under a law, with noise of its own."""
    noise = np.exp(0.006 * np.random.default_rng(int(step.id[:8], 16)).standard_normal())
    if step.teacher is None:
        return float(LAW.loss(step.shape.params, step.tokens) * noise)
    L_T = loss_of(step.teacher)
    return float(DISTILLED.loss(step.shape.params, step.tokens, L_T, LAW) * noise)


class Trainer:
    """Stands for ``run_sweep``: writes results of a law, in no time, and fails what it is told to."""

    def __init__(
        self, fails: Callable[[Step], bool] = lambda _: False, dies_after: int | None = None
    ) -> None:
        self.fails, self.left = fails, dies_after
        self.trained: list[str] = []

    def __call__(self, resolved: Any, dag: Dag, store: Store, *_: Any) -> State:
        record_sweep(store, resolved.spec, dag)
        state = State(dag=dag, cost=lambda _: 1.0, found=set())
        for step in dag.steps:
            if store.result(step.id) is None:
                if self.left == 0:
                    raise KeyboardInterrupt
                if self.left is not None:
                    self.left -= 1
                if self.fails(step):
                    store.write({"step": step.as_json(), "reason": "diverged"}, step.id, "failure.json")
                    state.fail(step.id, "diverged")
                    continue
                self.train(step, store)
            state.finish(step.id)
        return state

    def train(self, step: Step, store: Store) -> None:
        self.trained.append(step.id)
        loss = loss_of(step) if step.kind.is_run else 0.0
        store.write({"step": step.as_json()}, step.id, "step.json")
        told = {"loss": loss, "loss_se": 0.005, "bits_per_byte": loss / 3, "epochs": 0.1}
        parts = {"flops": {"total": step.flops}, "seconds": {"train": 1.0}, "step": step.as_json()}
        store.commit(step.id, {"id": step.id} | told | parts)


@pytest.fixture(scope="module")
def quickstart() -> LoadedSweep:
    return sweeps.load("quickstart", read_text=False)


def adaptive(loaded: LoadedSweep, store: Path, limits: Limits = LIMITS) -> AdaptiveSweep:
    return AdaptiveSweep(
        resolved=loaded.resolved, dag=loaded.dag, store=Store(store), questions=[QUESTION], limits=limits
    )


def test_rounds_are_recorded_with_what_was_believed(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    monkeypatch.setattr(auto, "run_sweep", trainer)
    told: list[Round] = []
    rounds = adaptive(quickstart, tmp_path).run(Where(), told=told.append)
    assert [each.number for each in rounds] == list(range(1, len(rounds) + 1))
    assert rounds == read_rounds(Store(tmp_path)) == told
    assert [bool(each.stop) for each in rounds] == [False] * (len(rounds) - 1) + [True]
    assert all(len(each.runs) <= 4 for each in rounds[:2])
    assert rounds[1].believed["measured"] >= len(rounds[0].runs)
    assert rounds[0].asked == (QUESTION.describe(),)
    done = {run for each in rounds for run in each.runs}
    assert done <= set(trainer.trained)
    again = adaptive(quickstart, tmp_path).run(Where())
    assert again == rounds


@pytest.fixture(scope="module")
def whole(quickstart: LoadedSweep, tmp_path_factory: pytest.TempPathFactory) -> list[Round]:
    """Rounds of a sweep that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "run_sweep", Trainer())
        return adaptive(quickstart, tmp_path_factory.mktemp("whole"), TWO_ROUNDS).run(Where())


@pytest.mark.parametrize("steps", [0, 2, 6])
def test_interrupted_anywhere_it_goes_on_with_the_same_decisions(
    quickstart: LoadedSweep, whole: list[Round], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer(dies_after=steps))
    with pytest.raises(KeyboardInterrupt):
        adaptive(quickstart, tmp_path / "cut", TWO_ROUNDS).run(Where())
    monkeypatch.setattr(auto, "run_sweep", rest := Trainer())
    cut = adaptive(quickstart, tmp_path / "cut", TWO_ROUNDS).run(Where())
    assert [(each.runs, each.stop, each.regret) for each in cut] == [
        (each.runs, each.stop, each.regret) for each in whole
    ]
    assert rest.trained


def test_the_second_of_two_drivers_takes_the_first_ones_round(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer(dies_after=0))
    sweep = adaptive(quickstart, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(Where())
    first = read_rounds(sweep.store)[0]
    other = Round(
        number=1, runs=("another",), flops=1.0, regret=0.0, regret_after=0.0, stop="", decided="", believed={},
        asked=(),
    )  # fmt: skip
    assert record_round(sweep.store, other) == first


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(regret=-1.0, rounds=2), "2 rounds were run, of 2"),
        (Limits(regret=-1.0, spend=1.2e12), "are left to spend"),
        (Limits(regret=-1.0, hours=0.0), "this driver has run"),
        (Limits(regret=0.5), "expected regret"),
        (Limits(regret=-1.0, slots=40), "no candidate is left"),
    ],
)
def test_every_limit_stops(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, reason: str
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer())
    rounds = adaptive(quickstart, tmp_path, limits).run(Where())
    assert reason in rounds[-1].stop
    assert sum(each.flops for each in rounds) <= limits.spend


def test_more_money_goes_on_where_it_stopped(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer())
    first = adaptive(quickstart, tmp_path, Limits(regret=-1.0, spend=8e11)).run(Where())
    more = adaptive(quickstart, tmp_path, Limits(regret=-1.0, spend=1.6e12)).run(Where())
    assert more[: len(first)] == first
    assert len(more) > len(first)


def test_another_question_is_answered_where_the_first_one_stopped(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No candidate is left for either; the recorded answer is that of the first question."""
    monkeypatch.setattr(auto, "run_sweep", Trainer())
    none_left = Limits(regret=-1.0, slots=40)
    first = adaptive(quickstart, tmp_path, none_left).run(Where())
    other = replace(QUESTION, budget=2 * float(QUESTION.budget or 0))
    sweep = replace(adaptive(quickstart, tmp_path, none_left), questions=[other])
    rounds = sweep.run(Where())
    assert rounds[:-1] == first
    assert rounds[-1].stop == first[-1].stop
    assert rounds[-1].asked == (other.describe(),)
    assert sweep.run(Where()) == rounds


def test_runs_that_fail_are_not_proposed_again(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = min(step.shape.params for step in quickstart.dag.steps)
    monkeypatch.setattr(auto, "run_sweep", Trainer(fails=lambda step: step.shape.params == smallest))
    rounds = adaptive(quickstart, tmp_path, Limits(regret=-1.0, rounds=3)).run(Where())
    sizes = {step.id: step.shape.params for step in quickstart.dag.steps}
    assert smallest in {sizes[run] for run in rounds[0].runs}
    later = [run for each in rounds[1:] for run in each.runs]
    assert later
    assert not set(rounds[0].runs) & set(later)


def test_a_round_of_which_nothing_can_be_trained_is_an_error(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer(fails=lambda _: True))
    with pytest.raises(InputError, match="round 1: failed"):
        adaptive(quickstart, tmp_path).run(Where())


def test_a_spend_that_buys_nothing_and_damaged_rounds_are_refused(
    quickstart: LoadedSweep, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="buy none of the 43 candidates"):
        adaptive(quickstart, tmp_path, Limits(spend=1e6)).run(Where())
    Store(tmp_path).write({"schema": 1, "number": 1, "runs": []}, "rounds", "0001.json")
    with pytest.raises(InputError, match=r"rounds/0001.json: damaged"):
        adaptive(quickstart, tmp_path).run(Where())
    Store(tmp_path).write({"schema": 9}, "rounds", "0001.json")
    with pytest.raises(InputError, match="another version"):
        read_rounds(Store(tmp_path))


def test_the_command_trains_real_runs_and_says_what_it_decided(
    small_spec: dict[str, Any], tmp_path: Path
) -> None:
    import yaml

    spec, store = tmp_path / "small.yaml", tmp_path / "store"
    spec.write_text(yaml.safe_dump(small_spec))
    arguments = ["sweep", "auto", str(spec), "--store", str(store), "--executor", "inline", "--rounds", "1"]
    arguments += ["--student", "3k", "--budget", "1e10", "--slots", "2", "--scenario", "best_case"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert "round 1: expected regret" in run.output
    assert "1 rounds were run, of 1" in run.output
    assert len(sweeps.results(store)) >= 2
    proposed = CliRunner().invoke(app, ["sweep", "next", str(store), "--student", "3k", "--budget", "1e10"])
    assert proposed.exit_code == 0, proposed.output


def test_flops_that_runs_report_are_what_is_spent(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer())
    sweep = adaptive(quickstart, tmp_path, Limits(regret=-1.0, rounds=1))
    first = sweep.run(Where())[0]
    assert sweep._spent([first]) == pytest.approx(first.flops)
    run = first.runs[0]
    result = sweep.store.result(run)
    assert result is not None
    more = {**result, "flops": {"total": result["flops"]["total"] + 5e10}}
    monkeypatch.setattr(Store, "results", lambda *_: {run: more})
    assert sweep._spent([first]) == pytest.approx(first.flops + 5e10)


def test_runs_of_other_sizes_are_known_and_those_of_other_rules_refused(
    quickstart: LoadedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "run_sweep", Trainer())
    sweep = adaptive(quickstart, tmp_path, Limits(regret=-1.0, rounds=1))
    assert known_runs(sweep.store, quickstart.dag) is None
    sweep.run(Where())
    first = quickstart.dag.example
    known = known_runs(sweep.store, Dag(steps=(replace(first, seed=99),), asked=1))
    assert known is not None
    assert len(known) >= 4
    rules = first.training.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(
        InputError, match="its runs are of another text, tokenizer, context or training rules"
    ):
        known_runs(sweep.store, Dag(steps=(replace(first, training=rules),), asked=1))


def test_an_adaptive_sweep_trains_projected_runs_end_to_end(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    del small_spec["teachers"], small_spec["students"]
    small_spec["training"] |= {"schedule": "wsd"}
    small_spec["supervised"] = [{"params": ["3k"], "tokens": ["32k", "40k"], "measure": "projected"}]
    question = Question(student_params=12e3, budget=1e11, scenarios=("best_case",))  # type: ignore[arg-type]
    loaded = sweeps.load(small_spec)
    sweep = AdaptiveSweep(
        resolved=loaded.resolved, dag=loaded.dag, store=Store(tmp_path), questions=[question],
        limits=Limits(regret=-1.0, rounds=1),
    )  # fmt: skip
    rounds = sweep.run(Where(executor="inline"))
    assert rounds[-1].stop
    proposed = rounds[0].believed["runs"]
    assert [bool(run["projected_sd"]) for run in proposed if run["tokens"] == 40_000] == [True]
    table = sweeps.results(tmp_path)
    assert table["projected_sd"].notna().tolist() == [False, True]
    assert rounds[-1].believed["measured"] == 2
