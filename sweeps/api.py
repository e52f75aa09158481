"""Sweeps from Python: load a spec, plan it, run it here or on a cluster, read where a store stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError

if TYPE_CHECKING:
    from fits.design.proposal import Proposal
    from fits.estimation.laws.sibling import Sibling
    from scaling.planner.question import Question
    from sweeps.adaptive.auto import Limits
    from sweeps.adaptive.rounds import Round
    from sweeps.dag.expand import Dag
    from sweeps.dag.resolved import Resolved
    from sweeps.estimate.plan import SweepPlan
    from sweeps.execute.state import State
    from sweeps.spec.spec import Sweep
    from sweeps.store.store import Store
    from sweeps.watch.status import Status


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class LoadedSweep:
    """A validated spec, what it names looked up, and the steps that it stands for."""

    resolved: Resolved
    dag: Dag

    def __repr__(self) -> str:
        return f"<LoadedSweep {self.spec.name!r}: {len(self.dag.steps)} steps, {self.dag.flops:.3g} FLOPs>"

    @property
    def spec(self) -> Sweep:
        """The spec, as it was given."""
        return self.resolved.spec

    @property
    def default_store(self) -> str:
        """Store that is used if none is named: ``runs/NAME``."""
        return f"runs/{self.spec.name}"

    def at(self, store: str | Path | None = None, *, record: bool = False) -> LoadedSweep:
        """Return the sweep as it is run in a store; :meth:`plan`, :meth:`run` and :meth:`jobs` ask for it.

        ``training.compile: auto`` is as it was decided there, or measured here, and the text is counted for
        what teachers write down of it, each token once. Otherwise nothing changes.

        Args:
            store: A path or URL; :attr:`default_store` if not given.
            record: Record in the store what was not decided there.
        """
        from sweeps.dag.expand import expand
        from sweeps.dag.kept_text import with_kept_tokens
        from sweeps.estimate.probes.compile_record import decided_in

        resolved, dag = self.resolved, self.dag
        if self.spec.training.compile == "auto":
            resolved = decided_in(self._store(store), resolved, record=record)
            dag = expand(resolved)
        return LoadedSweep(resolved=resolved, dag=with_kept_tokens(dag, resolved.text))

    def plan(self, store: str | Path | None = None, *, devices: int | None = None) -> SweepPlan:
        """Estimate what the sweep takes, and what the laws will lack; nothing is trained.

        Args:
            store: Where results will go, a path or URL; what is done there counts. :attr:`default_store` if
                not given.
            devices: GPUs where the spec names hardware, else cores; one GPU or all cores if not given.

        Returns:
            Steps with FLOPs, seconds, memory and money. It prints itself, and has ``to_frame()``,
            ``to_dict()`` and ``plot``.

        Raises:
            InputError: If the text cannot be had, or the store is damaged.

        >>> import sweeps
        >>> plan = sweeps.load("quickstart", read_text=False).plan("memory://plans")
        >>> len(plan.to_frame()), f"{plan.dag.flops:.3g} FLOPs"
        (69, '8.77e+12 FLOPs')
        """
        from scaling.cpu import usable_cores
        from sweeps.estimate.plan import plan_sweep

        usual, here = 1 if self.spec.hardware.gpu else usable_cores(), self.at(store)
        return plan_sweep(here.resolved, here.dag, self._store(store), devices or usual)

    def run(
        self,
        store: str | Path | None = None,
        *,
        executor: str | None = None,
        cores: int | None = None,
        address: str | None = None,
        watch: Callable[[State], None] | None = None,
        begun: float | None = None,
    ) -> State:
        """Run what is missing of the sweep. Interrupted, what is done stays; the same call goes on.

        Args:
            store: Where results go, a path or URL; :attr:`default_store` if not given.
            executor: ``"process"``, ``"ray"`` or ``"inline"`` (in this process, one step after the other);
                Ray where there is an address or a GPU, else processes.
            cores: Processes, one thread each; all cores if not given.
            address: Ray cluster: ``local``, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
            watch: Called about twice a second with where things stand.
            begun: When this driver began, by ``time.monotonic()``, for ``caps.hours``; now if not given.

        Returns:
            Where things stand at the end: ``done``, ``failed`` with reasons, ``blocked``, ``halted``.

        Raises:
            InputError: If the sweep would pass its caps, its text was not read, or a step could never be
                placed.
        """
        from sweeps.execute.run import Where, run_sweep

        self._needs_its_text()
        where = Where(executor=executor, cores=cores, address=address)
        begun = time.monotonic() if begun is None else begun
        silent: Callable[[State], None] = lambda _: None  # noqa: E731
        place = self._store(store)
        here = self.at(place.root, record=True)
        return run_sweep(here.resolved, here.dag, place, where, watch or silent, begun)

    def next_runs(
        self, questions: Question | Sequence[Question], store: str | Path | None = None, **options: Any
    ) -> Proposal:
        """Propose the runs of the spec that decide a question at the least cost; nothing is trained.

        Args:
            questions: What is to be decided, each with a budget.
            store: Results so far, a path or URL; none if not given.
            options: ``spend`` (FLOPs), ``slots``, ``regret`` (nats/token), ``sibling`` and others of
                :func:`fits.design.next_runs.next_runs`.

        Returns:
            The runs in the order of their worth, or the advice to stop.

        Raises:
            InputError: For a question without a budget, or a spend that buys nothing.

        >>> import sweeps
        >>> from scaling import Question
        >>> sweep = sweeps.load("quickstart", read_text=False)
        >>> found = sweep.next_runs(Question(student_params=56e3, budget=3e12), slots=4)
        >>> found.stop, len(found.runs)
        (False, 4)
        """
        from sweeps.adaptive.next_runs import propose

        asked = questions if isinstance(questions, Sequence) else [questions]
        dag = self.dag if store is None else self.at(store).dag
        return propose(dag, None if store is None else self._store(store), asked, **options)

    def auto(
        self,
        questions: Question | Sequence[Question],
        store: str | Path | None = None,
        *,
        limits: Limits | None = None,
        sibling: Sibling | None = None,
        executor: str | None = None,
        cores: int | None = None,
        address: str | None = None,
    ) -> list[Round]:
        """Train the runs that decide a question, round by round; interrupted, the same call goes on.

        Args:
            questions: What is to be decided, each with a budget.
            store: Where results and rounds go; :attr:`default_store` if not given.
            limits: Limits of regret, FLOPs, rounds and hours; an expected regret of .01 if not given.
            sibling: The law of another corpus, in place of the weak priors.
            executor: As in :meth:`run`.
            cores: As in :meth:`run`.
            address: As in :meth:`run`.

        Returns:
            All rounds, the last with the reason to stop.

        Raises:
            InputError: For a spend that buys nothing, or a round of which no run could be trained.
        """
        from sweeps.adaptive.auto import AdaptiveSweep
        from sweeps.adaptive.auto import Limits as Bounds
        from sweeps.execute.run import Where

        self._needs_its_text()
        here = self.at(store, record=True)
        sweep = AdaptiveSweep(
            resolved=here.resolved,
            dag=here.dag,
            store=self._store(store),
            questions=questions if isinstance(questions, Sequence) else [questions],
            limits=limits or Bounds(),
            sibling=sibling,
        )
        return sweep.run(Where(executor=executor, cores=cores, address=address))

    def submit(self, address: str, store: str, *, install: bool = False) -> str:
        """Submit the sweep to a Ray cluster's job server.

        Args:
            address: The job server, such as ``http://127.0.0.1:8265``.
            store: A URL, or an absolute path that all nodes see.
            install: Install pinned packages for the job, all but torch and Ray.

        Returns:
            The job's name.

        Raises:
            InputError: If nobody answers there, or not all nodes could reach the store.
        """
        from sweeps.execute.submission import submit

        self._needs_its_text()
        return submit(address, self.spec, store, install=install)

    def launch(
        self,
        scheduler: str,
        out: str | Path,
        *,
        store: str,
        nodes: int | None = None,
        gpus: int | None = None,
        **machines: Any,
    ) -> list[str]:
        """Write what a scheduler needs to run the sweep; nothing is submitted.

        Args:
            scheduler: ``slurm``, ``slurm-ray``, ``kubernetes``, ``kuberay``, ``sky``, ``aws`` or ``gcp``.
            out: Directory for its files.
            store: A URL, or an absolute path that all nodes see.
            nodes: Nodes; by default as many as a step needs.
            gpus: GPUs of each node, likewise.
            machines: Other fields of :class:`sweeps.launch.launch.Launch`, such as ``cpus`` and ``image``.

        Returns:
            Commands to type next.

        Raises:
            InputError: If such machines could not run the sweep, naming the field or option.
        """
        from sweeps.launch.launch import Launch
        from sweeps.launch.write import write_launch

        rules = self.spec.resources
        launch = Launch(
            sweep=self.spec,
            store=store,
            nodes=nodes or max((rule.nodes for rule in rules), default=1),
            gpus=max((rule.gpu_count for rule in rules), default=0) if gpus is None else gpus,
            **machines,
        )
        return write_launch(scheduler, launch, out)

    def jobs(self, store: str | Path | None = None) -> list[dict[str, Any]]:
        """Return the runs that commands train and that have no result yet, for a scheduler of your own.

        The sweep is recorded in the store, so that :func:`record` knows its steps.

        Args:
            store: Where results go, a path or URL; :attr:`default_store` if not given.

        Returns:
            One dictionary a run: ``id``, ``ready``, ``needs``, ``argv``, ``env``, and ``job``, which
            ``DISTLAW_JOB`` must name.

        Raises:
            InputError: If no run of the sweep has a trainer, or its text was not read.
        """
        from sweeps.execute.steps.provenance import record_sweep
        from sweeps.external.handover import jobs

        self._needs_its_text()
        place = self._store(store)
        place.create()
        dag = self.at(store, record=True).dag
        found = list(jobs(dag, place))
        record_sweep(place, self.spec, dag)
        return found

    def _store(self, store: str | Path | None) -> Store:
        from sweeps.store.store import Store

        return Store(self.default_store if store is None else store)

    def _needs_its_text(self) -> None:
        if self.resolved.text.estimated:
            raise InputError(
                f"{self.spec.name}: it was loaded without its text, which is enough for a plan only; load it "
                "with read_text=True"
            )


def load(
    spec: str | Path | Mapping[str, Any], changes: Sequence[str] = (), *, read_text: bool = True
) -> LoadedSweep:
    """Load a spec, look up what it names, and expand it into steps.

    Args:
        spec: A YAML file, the name of a preset, or the fields of a spec as a dictionary.
        changes: Changes of fields, each ``FIELD=VALUE``, such as ``students[0].params=[10k,30k]``.
        read_text: Read the text. Without it, the sweep can be planned but not run, from an estimate of its
            tokens: before the text is there, or where it lies on a cluster only.

    Returns:
        The validated spec with its steps; nothing is trained.

    Raises:
        InputError: Naming the field that is wrong.

    >>> import sweeps
    >>> sweep = sweeps.load("quickstart", ["training.learning_rate=0.02"])
    >>> sweep.default_store, len(sweep.dag.steps)
    ('runs/quickstart', 69)
    """
    from sweeps.dag.compiled_sizes import check_compiled_sizes
    from sweeps.dag.expand import expand
    from sweeps.resolve import resolve
    from sweeps.spec.spec import load_sweep, spec_name

    sweep = load_sweep(spec, changes)
    try:
        resolved = resolve(sweep, read_text=read_text)
        dag = expand(resolved)
        check_compiled_sizes(sweep, dag.steps)
        return LoadedSweep(resolved=resolved, dag=dag)
    except InputError as error:
        raise InputError(f"{spec_name(spec)}: {error}") from None


def record(store: str | Path, step: str, result: str | Path) -> dict[str, Any]:
    """Record the result of a run that was trained elsewhere; a model is measured on the held-out text.

    Args:
        store: Store in which :meth:`LoadedSweep.jobs` or a run has recorded the sweep.
        step: The run, by the start of its id.
        result: Its ``result.json``: ``params``, and a ``loss`` in nats/token or a ``model`` beside it.

    Returns:
        The result, as it is in the store.

    Raises:
        InputError: If there is no such run, it needs another first, has a result, or the file is none.

    >>> import sweeps
    >>> sweeps.record("runs/nowhere", "3f2a", "result.json")
    Traceback (most recent call last):
    scaling.errors.InputError: runs/nowhere: not a sweep store (no sweep.json in it)
    """
    from sweeps.execute.steps.command_steps import record_result
    from sweeps.store.store import Store

    return record_result(Store(store), step, Path(result))


def status(store: str | Path) -> Status:
    """Return where the sweep last started in a store stands, from any process that reaches it.

    Args:
        store: A path or URL.

    Returns:
        Its steps with their states, what is spent, and who drives it. It prints itself, and has
        ``to_frame()``, ``to_dict()`` and ``plot``.

    Raises:
        InputError: If there is no sweep, or what describes it is damaged.

    >>> import sweeps
    >>> sweeps.status("runs/nowhere")
    Traceback (most recent call last):
    scaling.errors.InputError: runs/nowhere: not a sweep store (no sweep.json in it)
    """
    from sweeps.store.store import Store
    from sweeps.watch.status import status as read

    return read(Store(store))
