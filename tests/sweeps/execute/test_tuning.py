"""Searching for training rules and method settings at a proxy size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.tuning import JOURNAL, TuningResult, tune
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Sweep, parse_sweep
from sweeps.store.store import Store


@pytest.fixture
def spec(small_spec: dict[str, Any], own_cache: Path) -> dict[str, Any]:
    rates = {"low": 1e-5, "high": 0.1, "log": True}
    small_spec["training"] |= {"schedule": "wsd"}
    small_spec["tuning"] = {"params": "3k", "tokens": "32k", "trials": 5, "learning_rate": rates}
    return small_spec


class Search:
    """A search that counts what it runs, and can be killed after so many steps."""

    def __init__(self, spec: dict[str, Any], folder: Path, together: int = 1) -> None:
        self.sweep, self.store, self.together = parse_sweep(spec), Store(folder), together
        self.ran: list[str] = []
        self.told: list[str] = []
        self.kill_after = 10**9

    def run(self, dag: Dag, store: Store) -> None:
        todo = [step.id for step in dag.steps if store.result(step.id) is None]
        allowed = todo[: self.kill_after - len(self.ran)]
        steps = tuple(step for step in dag.steps if step.id not in todo or step.id in allowed)
        self.ran += allowed
        assert not run(
            Dag(steps=steps, asked=0), store, InlineExecutor(store), lambda _: 1.0, lambda _: None
        ).failed
        if allowed != todo:
            raise KeyboardInterrupt

    def __call__(self) -> tuple[Sweep, list[TuningResult]]:
        return tune(self.sweep, self.store, self.run, self.told.append, self.together)


def test_the_best_rate_is_chosen_and_the_worse_half_is_pruned(spec: dict[str, Any], tmp_path: Path) -> None:
    search = Search(spec, tmp_path / "t")
    chosen, (found,) = search()
    assert chosen.training.learning_rate == found.values["learning_rate"]
    assert chosen.tuning is None
    assert chosen.students == search.sweep.students
    assert len(search.told) == found.trials == 5
    assert found.pruned >= 1
    path = str(tmp_path / "t" / JOURNAL)
    backend = optuna.storages.journal.JournalFileBackend(
        path, optuna.storages.journal.JournalFileOpenLock(path)
    )
    study = optuna.load_study(study_name="training", storage=optuna.storages.JournalStorage(backend))
    assert study.best_params == {"peak_rate": found.values["learning_rate"]}  # the name in 0.1.0's journals
    first_looks = [trial.intermediate_values[1] for trial in study.trials]
    assert study.trials[study.best_trial.number].intermediate_values[1] <= sorted(first_looks)[2]


def test_a_search_that_was_killed_goes_on_and_repeats_nothing(spec: dict[str, Any], tmp_path: Path) -> None:
    search = Search(spec, tmp_path / "t")
    search.kill_after = 4
    with pytest.raises(KeyboardInterrupt):
        search()
    search.kill_after = 10**9
    _, (found,) = search()
    assert len(search.ran) == len(set(search.ran))
    assert found.trials - found.pruned >= 1
    ran = len(search.ran)
    again = search()[1]
    assert again == [found]
    assert len(search.ran) == ran


def test_a_torn_journal_heals_and_whole_trials_stay(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["tuning"] |= {"trials": 2}
    search = Search(spec, tmp_path / "t")
    _, (found,) = search()
    ran, journal = len(search.ran), tmp_path / "t" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-25])
    whole = journal.read_bytes().rpartition(b"\n")[0]
    _, (again,) = search()
    assert (again.values, again.loss) == (found.values, found.loss)
    assert len(search.ran) == ran
    assert journal.read_bytes().startswith(whole + b"\n")


def test_a_journal_damaged_elsewhere_is_named(spec: dict[str, Any], tmp_path: Path) -> None:
    search = Search(spec, tmp_path / "t")
    search.store.create()
    (tmp_path / "t" / JOURNAL).write_bytes(b"{}\n\0\0\n{}\n")
    with pytest.raises(InputError, match=r"study.journal: line 2 is not a record of a study"):
        search()


def test_each_method_gets_its_own_temperature_under_the_tuned_rate(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["methods"] = [{"logits": "cached"}, {"divergence": "jensen-shannon"}, "minillm"]
    spec["tuning"] |= {"trials": 2, "temperature": {"low": 1, "high": 4}}
    search = Search(spec, tmp_path / "t", together=2)
    chosen, found = search()
    assert [each.name for each in found] == ["training", "forward-kl cached", "jensen-shannon"]
    searched, unsearched = chosen.methods[:2], chosen.methods[2]
    assert [m.temperature for m in searched] == [each.values["temperature"] for each in found[1:]]
    assert unsearched == search.sweep.methods[2]
    assert "minillm: nothing to tune, as it allows no other temperature" in search.told
    rates = {
        result["step"]["training"]["learning_rate"]
        for step in search.store.steps()
        if (result := search.store.result(step)) and result["step"]["teacher"]
    }
    assert rates == {chosen.training.learning_rate}


def test_a_search_ends_with_its_budget(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["tuning"] |= {"max_flops": 1}
    search = Search(spec, tmp_path / "t")
    assert search()[1][0].trials == 1
    assert "the budget of 1 FLOPs is spent" in search.told[-1]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"low": 0.1, "high": 0.01}, r"tuning\.learning_rate: low \(0.1\) must be below high \(0.01\)"),
        ({"low": 0, "high": 0.01, "log": True}, "must be positive to search in logarithms"),
    ],
)
def test_a_range_must_be_one(spec: dict[str, Any], rates: dict[str, Any], message: str) -> None:
    spec["tuning"]["learning_rate"] = rates
    with pytest.raises(InputError, match=message):
        parse_sweep(spec)


def test_batches_that_may_be_tried_are_judged_beforehand(spec: dict[str, Any]) -> None:
    spec["tuning"] |= {"batch_tokens": [64, 100]}
    with pytest.raises(InputError, match=r"tuning.batch_tokens\[1\] \(100\) must be a multiple of .* \(32\)"):
        parse_sweep(spec)
    spec["tuning"] |= {"batch_tokens": [64, 32]}
    with pytest.raises(InputError, match=r"methods\[0\].source.by: .* but a batch is 1 block"):
        parse_sweep(spec | {"methods": ["f-distill-js"]})


TOP, DNKD = {"logits": "top-k"}, {"use": "dnkd", "neighbours": {"keys": 1024}}


@pytest.mark.parametrize("method", [TOP, DNKD])
def test_a_method_is_never_tried_at_a_temperature_that_it_cannot_have(
    spec: dict[str, Any], method: dict[str, Any], tmp_path: Path
) -> None:
    """Ranges that contain the only legal value, end with it, or begin with it."""
    for low, high in ((0.5, 2), (0.5, 1), (1, 4)):
        spec["tuning"] |= {"learning_rate": None, "temperature": {"low": low, "high": high}}
        search = Search(spec | {"methods": [method]}, tmp_path / "t")
        chosen, found = search()
        assert (found, search.ran) == ([], [])
        assert chosen.methods == search.sweep.methods
        assert "nothing to tune, as it allows no other temperature" in search.told[0]


def test_methods_of_some_students_are_tuned_in_their_place(spec: dict[str, Any], tmp_path: Path) -> None:
    own = [{"divergence": "skew-kl"}, TOP]
    spec["students"].append({"params": ["3k"], "tokens": ["64k"], "methods": own})
    spec["tuning"] |= {"learning_rate": None, "trials": 1, "temperature": {"low": 2, "high": 3}}
    chosen, found = Search(spec, tmp_path / "t")()
    assert [each.name for each in found] == ["skew-kl", "forward-kl"]
    assert chosen.methods[0].temperature == found[1].values["temperature"]
    first, second = chosen.students[1].methods or []
    assert (first.temperature, second) == (found[0].values["temperature"], Method(logits="top-k"))
    assert chosen.students[0].methods is None


def test_nothing_to_tune_is_said(small_spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tuning: missing; add it"):
        Search(small_spec, tmp_path)()


def test_a_command_is_tuned_by_the_losses_that_it_reports(
    small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """A command whose loss grows with the rate that it is given: the smallest of the rates tried wins."""
    program = "import sys; open(sys.argv[1] + '/result.json', 'w').write(sys.argv[2])"
    told = '{{"params": {params}, "loss": {learning_rate}}}'
    trainer = {"command": [sys.executable, "-c", program, "{out}", told], "version": "1"}
    rates = {"low": 1e-4, "high": 1.0, "log": True}
    tuning = {"params": "3k", "tokens": "32k", "trials": 3, "learning_rate": rates}
    search = Search(small_spec | {"trainer": trainer, "tuning": tuning}, tmp_path / "t")
    chosen, (found,) = search()
    table = [search.store.result(step) for step in search.ran]
    assert len(table) == found.trials == 3
    assert found.values["learning_rate"] == min(result["loss"] for result in table if result)
    assert chosen.trainer == search.sweep.trainer
