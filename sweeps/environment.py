"""Settings in the environment, read as they were meant or refused when this is imported."""

from __future__ import annotations

import math
import os

from scaling.errors import InputError

DAY = 86_400.0


def seconds_from(name: str, default: float, *, at_least: float) -> float:
    """The seconds that the environment variable ``name`` gives, or the default where it is not set or empty.

    Raises:
        InputError: if it is no number, or not between ``at_least`` and a day.
    """
    found = given_seconds(name, at_least=at_least, unset=f"{default:g}")
    return default if found is None else found


def given_seconds(name: str, *, at_least: float, unset: str) -> float | None:
    """The seconds that the environment variable ``name`` gives, None where it is not set or empty.

    Raises:
        InputError: if it is no number, or not between ``at_least`` and a day; says what holds ``unset``.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not at_least <= found <= DAY:
        raise InputError(
            f"{name}: {text!r} is no number of seconds from {at_least:g} to {DAY:,.0f}; unset, {unset}"
        )
    return found


def choice_from(name: str, known: tuple[str, ...]) -> str:
    """The one of ``known`` that the environment variable ``name`` gives; empty where it is not set or empty.

    Raises:
        InputError: if it is none of them.
    """
    text = os.environ.get(name, "").strip()
    if text and text not in known:
        raise InputError(f"{name}: {', '.join(known)}, not {text!r}")
    return text


LEASE_SECONDS = seconds_from("DISTLAW_LEASE_SECONDS", 45.0, at_least=0.5)
"""Without a beat after which others may take a step over."""
CHECKPOINT_SECONDS = given_seconds(
    "DISTLAW_CHECKPOINT_SECONDS", at_least=0.01, unset="15 or more, by what checkpoints cost"
)
"""Between two checkpoints of a step, the most that a kill can cost; by their cost where it is None."""
GANG_TIMEOUT_SECONDS = seconds_from("DISTLAW_GANG_TIMEOUT_SECONDS", 600.0, at_least=1)
"""Seconds that a process waits for the others of its gang before it gives the attempt up."""
TRACKER = choice_from("DISTLAW_TRACKER", ("tensorboard", "wandb", "mlflow"))
"""Experiment tracker of every step, none if empty."""
