"""Experiment trackers: names that are known, and those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaling.errors import InputError
from sweeps.environment import choice_from
from sweeps.execute.steps.trackers import TRACKERS, Tracking
from sweeps.store.store import Store


def test_an_unknown_tracker_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^tracker: tensorboard, wandb, mlflow, not 'nonsense'"):
        Tracking(Store(tmp_path), "nonsense")


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_can_be_named_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    import sweeps.environment

    monkeypatch.setenv("DISTLAW_TRACKER", name)
    assert name == importlib.reload(sweeps.environment).TRACKER
    monkeypatch.undo()
    assert choice_from("DISTLAW_TRACKER", tuple(TRACKERS)) == importlib.reload(sweeps.environment).TRACKER
