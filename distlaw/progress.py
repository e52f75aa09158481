"""Live progress of a sweep: a bar and the running steps on a terminal, a line a step elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scaling.errors import InputError
from sweeps.store.leases import attempt_path
from sweeps.watch.status_text import clock

if TYPE_CHECKING:
    from sweeps.execute.state import Running, State
    from sweeps.store.store import Store


class Progress:
    """Live display of a :class:`sweeps.execute.state.State`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.told: set[str] = set()
        self.troubles = 0
        self.started = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def show(self, state: State) -> None:
        """Draw or print what is new; a closed pipe does not stop training."""
        with suppress(BrokenPipeError):
            for trouble in state.troubles[self.troubles :]:
                self.console.print(trouble, highlight=False, markup=False, soft_wrap=True)
            self.troubles = len(state.troubles)
            if self.console.is_terminal:
                self.live.start()  # not before workers are made; again does nothing
                self.live.update(self._picture(state))
            else:
                self._lines(state)

    def _picture(self, state: State) -> Group:
        total, done = len(state.dag.steps), len(state.done)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=total, completed=done, width=40),
            f"{done}/{total} steps, {clock(time.monotonic() - self.started)} gone, "
            f"about {clock(state.seconds_left(state.slots))} left",
        )
        steps = Table.grid(padding=(0, 2))
        for running in state.running.values():
            steps.add_row("  " + running.step.label, self._progress(running))
        failed = [
            Text(f"  failed {step[:8]}: {reason}", style="red") for step, reason in state.failed.items()
        ]
        return Group(bar, steps, *failed)

    def _progress(self, running: Running) -> str:
        with suppress(InputError, KeyError, TypeError, ValueError):  # damaged: only the picture suffers
            if found := self.store.read(*attempt_path(running.step.id, running.number, "beat")):
                loss = f"  loss {found['loss']:.3f}" if "loss" in found else ""
                return f"{found['steps_done']}/{found['steps']}{loss}"
        return "starting"

    def _lines(self, state: State) -> None:
        new = state.done - state.found - self.told
        for step in (s for s in state.dag.steps if s.id in new):
            result = self.store.result(step.id)
            loss = f"{result['loss']:.4f} nats/token" if result and "loss" in result else "done"
            self.console.print(
                f"[{len(state.done)}/{len(state.dag.steps)}] {step.label}: {loss}, "
                f"about {clock(state.seconds_left(state.slots))} left",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        self.told |= new
