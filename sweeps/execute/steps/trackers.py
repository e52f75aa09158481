"""Optional experiment trackers: TensorBoard, W&B or MLflow.

``DISTLAW_TRACKER=tensorboard`` (or ``wandb``, ``mlflow``) in the environment enables one for every step. The
tracker's own settings apply: WANDB_MODE=offline, MLFLOW_TRACKING_URI and so on. Nothing is read back from a
tracker.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from scaling.errors import InputError, MissingExtra
from sweeps.dag.expand import Step
from sweeps.environment import TRACKER
from sweeps.store.store import Store

PROJECT = "distlaw"


class Tracker(Protocol):
    """Tracker of one step."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Record ``numbers`` after so many optimizer steps."""

    def close(self) -> None:
        """Flush and close."""


class TensorBoard:
    """Event files in ``tensorboard/`` of the store, one directory per step."""

    def __init__(self, store: Store, step: Step) -> None:
        summaries = _load("torch.utils.tensorboard", "tensorboard")
        self.writer = summaries.SummaryWriter(f"{store.url}/tensorboard/{step.label} {step.id[:8]}")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Run of Weights & Biases, which is resumed."""

    def __init__(self, store: Store, step: Step) -> None:
        folder = store.url if store.local else None
        self.run = _load("wandb").init(
            project=PROJECT,
            id=step.id,
            name=step.label,
            group=Path(store.path).name,
            resume="allow",
            config=step.as_json(),
            dir=folder,
            reinit="create_new",
        )

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log(numbers, step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """Run of MLflow, in an experiment named after the store."""

    def __init__(self, store: Store, step: Step) -> None:
        self.client = _load("mlflow").MlflowClient()
        name = f"{PROJECT}/{Path(store.path).name}"
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.run = self.client.create_run(experiment, run_name=step.label, tags={"step": step.id}).info.run_id
        for key, value in {"params": step.shape.params, "tokens": step.tokens, "seed": step.seed}.items():
            self.client.log_param(self.run, key, value)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        self.client.set_terminated(self.run)


TRACKERS: dict[str, Callable[[Store, Step], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Tracking:
    """Trackers of the steps of a cohort, opened at the first report of each."""

    def __init__(self, store: Store, name: str | None = None) -> None:
        self.store = store
        self.name = TRACKER if name is None else name
        if self.name and self.name not in TRACKERS:
            raise InputError(f"tracker: {', '.join(TRACKERS)}, not {self.name!r}")
        self.open: dict[str, Tracker] = {}

    def log(self, step: Step, done: int, numbers: dict[str, float]) -> None:
        """Record ``numbers`` of ``step`` after ``done`` optimizer steps."""
        if not self.name:
            return
        if step.id not in self.open:
            self.open[step.id] = TRACKERS[self.name](self.store, step)
        self.open[step.id].log(done, numbers)

    def close(self) -> None:
        """Close all that are open."""
        for tracker in self.open.values():
            tracker.close()
        self.open.clear()


def _load(module: str, package: str | None = None) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module
        raise MissingExtra(
            f"tracker {name}: {error}; pip install {name}, or 'distlaw[trackers]' for all"
        ) from None
