"""Work of other drivers on the same store: steps that they run, have given up, or want tried again."""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.execute.state import State
from sweeps.store.history import AttemptHistory
from sweeps.store.leases import CANCEL, LeaseWatch
from sweeps.store.store import Store

RECORDS_OF_END = ("result.json", "failure.json")
"""Files that tell that a step is done, or was given up."""


class OtherDrivers:
    """Follower of the steps of a sweep that other drivers run, or that failed."""

    def __init__(self, store: Store, state: State, watch: LeaseWatch, history: AttemptHistory) -> None:
        self.store, self.state, self.watch, self.history = store, state, watch, history
        self.retry_baseline: dict[str, int] = {}
        """Last attempt, by step, that does not count for retries, as it was given up before."""

    def read_failures(self, contents: Mapping[str, set[str]]) -> None:
        """Read which steps were given up before, and are tried again; ``contents`` are the store's files."""
        missing = [step.id for step in self.state.dag.steps if step.id not in self.state.done]
        failed = [step for step in missing if "failure.json" in contents.get(step, ())]
        for (step, _), failure in self.store.read_all((step, "failure.json") for step in failed).items():
            self.retry_baseline[step] = failure.get("attempt", 0)

    def look(self) -> None:
        """Check which steps that others run have results, have failed, or may be claimed."""
        claimable = {step for step in self.state.elsewhere if self.watch.claimable(step, self.history)}
        asked = list(self.state.elsewhere) if self.store.local else claimable
        files = self.store.read_all((step, name) for step in asked for name in RECORDS_OF_END)
        for step in asked:
            failure = files.get((step, "failure.json"), {})
            if (step, "result.json") in files:
                self.state.finish(step)
            elif failure.get("attempt", 0) > self.retry_baseline.get(step, 0) and not failure.get("pardoned"):
                self.state.fail(step, failure["reason"])
            elif step in claimable:
                self.state.elsewhere.discard(step)

    def take_up_failed(self) -> list[str]:
        """Take up failed steps that others want tried again, or have finished; return them."""
        failed, cancelled = list(self.state.failed), set(self.state.cancelled)
        files = self.store.read_all((step, name) for step in failed for name in RECORDS_OF_END)
        names = self.store.names_all((step, "attempts") for step in failed if step in cancelled)
        found = []
        for step in failed:
            failure = files.get((step, "failure.json"), {})
            if (step, "result.json") in files:
                self.state.finish(step)
            elif step in cancelled:
                if CANCEL in names[step, "attempts"]:
                    continue
            elif failure.get("pardoned"):
                self.retry_baseline[step] = failure["attempt"]
            else:
                continue
            self.state.take_up(step)
            found.append(step)
        return found
