"""``trainer_state.json`` of the Hugging Face Trainer and what is built on it: TRL, Axolotl, LLaMA-Factory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fits.logs.formats.json_files import load_json
from fits.logs.run_log import RunLog, flatten

FORMAT = "Hugging Face trainer_state.json"
TOKENS = ("num_input_tokens_seen", "num_tokens")
"""Counts of tokens, which are 0 where the Trainer was not asked to count."""


def is_trainer_state(found: object) -> bool:
    """Return True for the object of a ``trainer_state.json``."""
    return isinstance(found, dict) and isinstance(found.get("log_history"), list) and "global_step" in found


def read_trainer_state(path: Path, name: str) -> RunLog:
    """Read the history of evaluations and training losses.

    The run counts as done when its last step is its last planned one, or where it was stopped early.

    Raises:
        InputError: for a file that is not JSON.
    """
    found = load_json(path)
    log = RunLog(name, path, FORMAT)
    for entry in found["log_history"]:
        if isinstance(entry, dict) and "step" in entry:
            log.add(float(entry["step"]), {key: value for key, value in entry.items() if _counts(key, value)})
    step, planned = float(found["global_step"]), float(found.get("max_steps") or 0)
    log.final({key: found[key] for key in TOKENS if found.get(key)}, step)
    log.settings = {"global_step": step, "max_steps": planned} | _settings(found)
    stopped = _was_stopped(found)
    log.status = "done" if step >= planned or stopped or _has_summary(found) else "running"
    return log


def _counts(key: str, value: object) -> bool:
    """Return True for a number of use: not the step, nor tokens that were not counted."""
    return key not in ("step", "epoch") and not (key in TOKENS and not value)


def _settings(found: dict[str, Any]) -> dict[str, Any]:
    names = ("train_batch_size", "num_train_epochs", "total_flos", "eval_steps", "logging_steps")
    return {name: found[name] for name in names if found.get(name) is not None}


def _was_stopped(found: dict[str, Any]) -> bool:
    """Return True if a callback ended the training, as early stopping does."""
    callbacks = found.get("stateful_callbacks")
    control = callbacks.get("TrainerControl", {}) if isinstance(callbacks, dict) else {}
    flags = dict(flatten(control)) if isinstance(control, dict) else {}
    return flags.get("args.should_training_stop") is True


def _has_summary(found: dict[str, Any]) -> bool:
    """Return True if the history ends with the summary that ``train()`` adds when it returns."""
    return any(isinstance(entry, dict) and "train_loss" in entry for entry in found["log_history"][-3:])
