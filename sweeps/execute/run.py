"""Run a sweep: record it in its store, choose an executor, hold it to its caps, and drive it to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scaling.cpu import usable_cores
from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.dag.resolved import Resolved
from sweeps.data.corpus import planned_tokens
from sweeps.estimate.cost import estimate_sweep
from sweeps.estimate.plan import check_caps, step_seconds
from sweeps.estimate.servers import server_work, with_servers
from sweeps.estimate.text_warnings import check_text, text_warnings
from sweeps.execute import scheduler
from sweeps.execute.executors.local import Executor, InlineExecutor, executor_for, refuse_unknown
from sweeps.execute.state import State
from sweeps.execute.steps.provenance import record_sweep
from sweeps.store.store import Store

Watch = Callable[[State], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Place where steps run."""

    executor: str | None = None
    """process, ray, slurm or inline; ray where there is an address or a GPU, else process."""
    cores: int | None = None
    """Processes, one thread each; all cores that this process may use, if not given."""
    address: str | None = None
    """Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT."""

    def open(self, store: Store, steps: int, cpus: int = 1) -> Executor:
        """Return the executor for at most so many steps at once, of at most so many cores each.

        Raises:
            InputError: For an unknown executor, or an address that leads nowhere.
        """
        cores = min(self.cores or usable_cores(), steps * cpus)
        return executor_for(self.executor, store, cores=cores, address=self.address)


def run_sweep(resolved: Resolved, dag: Dag, store: Store, where: Where, watch: Watch, begun: float) -> State:
    """Run what is missing of ``dag``; interrupted, what is done stays in the store.

    Args:
        resolved: The sweep, with what it names looked up.
        dag: Its steps.
        store: Where results go; made if it is not there.
        where: Place where steps run.
        watch: Called about twice a second with where things stand.
        begun: When this driver began, by ``time.monotonic()``; its hours count from there.

    Returns:
        Where things stand at the end. Failed steps raise nothing.

    Raises:
        InputError: If the sweep would pass its caps, or a step could never be placed.
    """
    if store.root.startswith("memory:") and where.executor != "inline":
        raise InputError(
            f"store: {store.root} is memory of this process, which workers cannot reach; give a path or a "
            'bucket, or executor="inline"'
        )
    refuse_unknown(where.executor)
    store.create()
    store.probe()
    sweep = resolved.spec
    record_sweep(store, sweep, dag)
    done = store.results(step.id for step in dag.steps)
    todo = len(dag.steps) - len(done)
    if not todo:
        return scheduler.run(dag, store, InlineExecutor(store), lambda _: 0.0, lambda _: None)
    check_text(sweep, resolved.text.size)
    warnings = text_warnings(planned_tokens(resolved.text.corpus, resolved.text.fingerprint))
    servers = server_work(dag, store)
    seconds = with_servers(step_seconds(sweep, dag, resolved.text.size), servers)
    executor = where.open(store, todo, max((rule.cpus for rule in sweep.resources), default=1))
    try:
        check_caps(sweep, estimate_sweep(dag, seconds, executor.slots, sweep))
        told = _telling(warnings, watch)
        return scheduler.run(dag, store, executor, seconds, told, sweep, begun)
    finally:
        executor.close()


def _telling(warnings: Sequence[str], watch: Watch) -> Watch:
    """Return ``watch`` that is told ``warnings`` first, among what went wrong."""
    left = [warning.removeprefix("! ") for warning in warnings]

    def told(state: State) -> None:
        state.troubles[:0] = left
        left.clear()
        watch(state)

    return told
