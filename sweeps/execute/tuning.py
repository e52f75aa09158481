"""Tuning of learning rate, batch size and method settings at a proxy size, which mu-P transfers.

Optuna proposes trials, which are runs in a separate store, so that a search that was killed repeats nothing.
Under ``wsd`` a trial is first evaluated on short branches of its shared prefix, and only the better half
continues to the next length. Optuna's journal is kept beside the runs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import Trial, TrialState
from pydantic import ValidationError

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.spec import MIN_STEPS, Grid, Students, Sweep, Training
from sweeps.spec.tuning import Range, Tuning
from sweeps.store.store import Store

JOURNAL = "study.journal"
JOURNAL_NAMES = {"learning_rate": "peak_rate"}
"""Names of parameters in the journal, which are those of 0.1.0."""
RUNGS = 3
"""Number of lengths at which a trial is evaluated, each twice the one before."""
EDGE_SHARE = 0.05
"""Share of a range that counts as its edge."""
NEAR_BEST = 0.01
"""Relative difference from the best loss that is within the noise of seeds of small models."""

Rules = TypeVar("Rules", Training, Method)
RunAll = Callable[[Dag, Store], None]
"""Function that runs the missing steps of a DAG in a store."""


@dataclass(frozen=True, slots=True)
class TuningResult:
    """Result of one search."""

    name: str
    values: dict[str, Any]
    loss: float
    """Held-out loss of the best trial, mean over seeds, nats/token."""
    trials: int
    pruned: int
    cautions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Store and functions with which trials run."""

    store: Store
    run: RunAll
    watch: Callable[[str], None]
    together: int


@dataclass(frozen=True, slots=True)
class _Search:
    """Study: the parameters of a trial, and the runs that evaluate it."""

    name: str
    ranges: dict[str, Range | list[float]]
    runs: Callable[[dict[str, Any], float], Sweep]
    """Function from a trial's values and a length in tokens to the sweep that evaluates it."""


def tune(
    sweep: Sweep, store: Store, run: RunAll, watch: Callable[[str], None], together: int = 1
) -> tuple[Sweep, list[TuningResult]]:
    """Tune the training rules, then the methods, of ``sweep`` at its proxy size.

    Args:
        sweep: the sweep.
        store: store of the trials.
        run: runs the steps of ``together`` trials at a time.
        watch: called with a line about every trial.
        together: number of concurrent trials.

    Returns:
        The sweep with the best values, and the results of the searches.

    Raises:
        InputError: if the sweep has no ``tuning``, or its budget is spent before any trial is complete.
    """
    tuning = sweep.tuning
    if tuning is None:
        raise InputError("tuning: missing; add it, such as tuning: {params: 13k, tokens: 262k}")
    store.create()
    place = _Place(store, run, watch, together)
    found = []
    if ranges := _given(tuning, "learning_rate", "batch_tokens"):
        search = _Search("training", ranges, lambda values, tokens: _supervised(sweep, values, tokens))
        found.append(_best(search, tuning, place))
        sweep = sweep.model_copy(update={"training": _training(sweep, found[-1].values)})
    if ranges := _given(tuning, "temperature", "cross_entropy"):
        chosen: dict[Method, Method] = {}
        for method in dict.fromkeys(method for _, method in sweep.methods_given()):
            own = {name: among for name, among in ranges.items() if _takes(method, name, among)}
            if not own:
                watch(f"{method.name}: nothing to tune, as it allows no other {' or '.join(ranges)}")
                continue
            search = _Search(method.name, own, _distilled(sweep, method))
            found.append(_best(search, tuning, place))
            chosen[method] = _changed(method, found[-1].values)
        sweep = _with_methods(sweep, chosen)
    return sweep.model_copy(update={"tuning": None}), found


def _with_methods(sweep: Sweep, chosen: dict[Method, Method]) -> Sweep:
    """Return ``sweep`` with the chosen methods instead of its methods."""

    def changed(methods: list[Method]) -> list[Method]:
        return [chosen.get(method, method) for method in methods]

    students = [
        grid.model_copy(update={"methods": changed(grid.methods)}) if grid.methods else grid
        for grid in sweep.students
    ]
    return sweep.model_copy(update={"methods": changed(sweep.methods), "students": students})


def _given(tuning: Tuning, *names: str) -> dict[str, Range | list[float]]:
    return {name: value for name in names if (value := getattr(tuning, name)) is not None}


def _training(sweep: Sweep, values: dict[str, Any]) -> Training:
    return _changed(sweep.training, values)


def _changed(part: Rules, values: dict[str, Any]) -> Rules:
    return type(part).model_validate(part.model_dump(exclude_unset=True) | values)


def _takes(method: Method, name: str, among: Range | list[float]) -> bool:
    """Return True if ``method`` is valid at both ends of a range of one of its settings."""
    ends = (among.low, among.high) if isinstance(among, Range) else (min(among), max(among))
    try:
        return all(_changed(method, {name: end}) for end in ends)
    except ValidationError:
        return False


def _supervised(sweep: Sweep, values: dict[str, Any], tokens: float) -> Sweep:
    """Return the sweep of the proxy, trained on the data alone."""
    none: dict[str, Any] = {"teachers": [], "students": [], "protocol": None}
    rules = {"training": _training(sweep, values), "supervised": [_proxy(sweep, tokens)]}
    return sweep.model_copy(update=none | rules)


def _distilled(sweep: Sweep, method: Method) -> Callable[[dict[str, Any], float], Sweep]:
    """Return a function to the sweep of the proxy, distilled from the first teacher."""
    teacher = sweep.teachers[0]
    if isinstance(teacher, Grid):
        several = ("params", "seeds", "tokens", "tokens_per_param", "flops")
        first = {name: values[:1] for name in several if (values := getattr(teacher, name))}
        teacher = teacher.model_copy(update=first)

    def runs(values: dict[str, Any], tokens: float) -> Sweep:
        return sweep.model_copy(
            update={
                "supervised": [],
                "teachers": [teacher],
                "students": [Students(**dict(_proxy(sweep, tokens)))],
                "methods": [_changed(method, values)],
                "protocol": None,
                "allow_weak_teachers": True,
            }
        )

    return runs


def _proxy(sweep: Sweep, tokens: float) -> Grid:
    assert sweep.tuning is not None
    return Grid(params=[sweep.tuning.params], tokens=[tokens], seeds=sweep.tuning.seeds)


def _best(search: _Search, tuning: Tuning, place: _Place) -> TuningResult:
    study = _study(search.name, place.store)
    _requeue(study)
    spent = sum(trial.user_attrs.get("flops", 0.0) for trial in study.trials)
    while (left := tuning.trials - sum(_counts(trial) for trial in study.trials)) > 0:
        if tuning.max_flops is not None and spent >= tuning.max_flops:
            place.watch(f"{search.name}: the budget of {tuning.max_flops:.3g} FLOPs is spent")
            break
        trials = [study.ask() for _ in range(min(left, place.together))]
        spent += _judge(study, trials, search, tuning, place)
        for trial in trials:
            place.watch(_line(search.name, study.trials[trial.number]))
    return _finding(search, study)


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _study(name: str, store: Store) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not store.local:
        raise InputError(f"--store: tuning keeps its journal in files; {store.root} is not a local path")
    path = Path(store.path, JOURNAL)
    lock = JournalFileOpenLock(str(path))
    _drop_torn_record(path, lock)
    journal = JournalFileBackend(str(path), lock)
    return optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(journal),
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=6),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        load_if_exists=True,
    )


def _drop_torn_record(path: Path, lock: JournalFileOpenLock) -> None:
    """Truncate an incomplete last record, left by a killed process.

    Raises:
        InputError: for a damaged record before the last.
    """
    if not path.exists():
        return
    lock.acquire()
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        damaged = [number for number, line in enumerate(lines) if not _is_record(line)]
        if damaged and damaged[0] < len(lines) - 1:
            raise InputError(
                f"{path}: line {damaged[0] + 1} is not a record of a study; restore the file, or move it "
                "away to start again (runs in the store are not repeated)"
            )
        if damaged:
            os.truncate(path, sum(map(len, lines[:-1])))
    finally:
        lock.release()


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict) and line.endswith(b"\n")
    except ValueError:
        return False


def _requeue(study: optuna.Study) -> None:
    """Enqueue again the trials that an earlier process did not finish; their runs are in the store."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _judge(study: optuna.Study, trials: list[Trial], search: _Search, tuning: Tuning, place: _Place) -> float:
    """Run trials together, pruning the worse ones, and tell the study; return the FLOPs spent."""
    values = {
        trial.number: {name: _suggested(trial, name, among) for name, among in search.ranges.items()}
        for trial in trials
    }
    total, alive = 0.0, list(trials)
    for rung in range(RUNGS):
        dags = {}
        for trial in alive:
            whole = search.runs(values[trial.number], tuning.tokens)
            if rung < len(lengths := _lengths(whole, tuning.tokens)):
                dags[trial.number] = dag_of(search.runs(values[trial.number], lengths[rung]))
        todo = _together(dag for dag in dags.values())
        new = [step for step in todo.steps if place.store.result(step.id) is None]
        place.run(todo, place.store)
        flops = sum(step.flops_to_spend for step in new if place.store.result(step.id))
        total += flops
        for trial in [trial for trial in alive if trial.number in dags]:
            trial.set_user_attr("flops", trial.user_attrs.get("flops", 0.0) + flops / len(dags))
            losses = list(_losses(dags[trial.number], place.store, tuning))
            if losses:
                trial.report(fmean(losses), 2**rung)
            if not losses or trial.should_prune():  # a failed trial is pruned too
                alive.remove(trial)
                study.tell(trial, state=TrialState.PRUNED)
    for trial in alive:
        last = study.trials[trial.number].intermediate_values
        study.tell(trial, last[max(last)])
    return total


def _together(dags: Iterable[Dag]) -> Dag:
    """Merge DAGs into one, with each step once."""
    steps = [step for dag in dags for step in dag.steps]
    return Dag(steps=tuple({step.id: step for step in steps}.values()), asked=len(steps))


def _suggested(trial: Trial, name: str, among: Range | list[float]) -> float:
    name = JOURNAL_NAMES.get(name, name)
    if isinstance(among, Range):
        return trial.suggest_float(name, among.low, among.high, log=among.log)
    return float(trial.suggest_categorical(name, among))


def _values(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Return the values of a trial under current names."""
    today = {old: name for name, old in JOURNAL_NAMES.items()}
    return {today.get(name, name): value for name, value in trial.params.items()}


def _lengths(sweep: Sweep, tokens: float) -> list[float]:
    """Return the lengths of a trial; short ones are cheap only if they share a prefix."""
    if sweep.training.schedule != "wsd":
        return [tokens]
    least = MIN_STEPS * sweep.training.batch_tokens
    shorter = [tokens / 2**halvings for halvings in range(RUNGS)]
    return sorted(length for length in shorter if length >= least) or [tokens]


def _losses(dag: Dag, store: Store, tuning: Tuning) -> Iterator[float]:
    """Yield the held-out losses of the proxies; none if one is missing."""
    proxies = [step for step in dag.steps if step.kind.is_run and _is_proxy(step, dag)]
    results = [store.result(step.id) for step in proxies]
    if len(results) == len(tuning.seeds) and all(results):
        yield from (result["loss"] for result in results if result)


def _is_proxy(step: Step, dag: Dag) -> bool:
    return step.teacher is not None or all(other.teacher is None for other in dag.steps)


def _line(name: str, trial: optuna.trial.FrozenTrial) -> str:
    values = ", ".join(f"{key} {value:.4g}" for key, value in _values(trial).items())
    heights = ", ".join(f"{loss:.4f}" for _, loss in sorted(trial.intermediate_values.items()))
    ending = "" if trial.state == TrialState.COMPLETE else " pruned" if heights else " failed"
    return f"{name} {trial.number}: {values}: {heights or 'no loss'}{ending}"


def _finding(search: _Search, study: optuna.Study) -> TuningResult:
    done = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        raise InputError(
            f"tuning: no trial of {search.name} was completed; raise max_flops, or check the failures"
        )
    best = min(done, key=lambda trial: trial.value or math.inf)
    assert best.value is not None
    return TuningResult(
        search.name,
        _values(best),
        best.value,
        len(study.trials),
        len(study.get_trials(states=(TrialState.PRUNED,))),
        tuple(_cautions(search, best, done)),
    )


def _cautions(
    search: _Search, best: optuna.trial.FrozenTrial, done: list[optuna.trial.FrozenTrial]
) -> Iterator[str]:
    for name, among in search.ranges.items():
        value = _values(best)[name]
        if isinstance(among, Range) and (edge := among.edge(value, EDGE_SHARE)):
            yield f"{name} {value:.4g} lies at the {edge} edge of its range; widen it"
        close = [_values(trial)[name] for trial in done if _close(trial, best)]
        if min(close) < max(close):
            yield f"{name} from {min(close):.4g} to {max(close):.4g} is within {NEAR_BEST:.0%} of the best"


def _close(trial: optuna.trial.FrozenTrial, best: optuna.trial.FrozenTrial) -> bool:
    return trial.value is not None and best.value is not None and trial.value < best.value * (1 + NEAR_BEST)
