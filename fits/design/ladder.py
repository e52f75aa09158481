"""Candidates without a spec: a ladder of sizes and tokens made for the question."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fits.design.candidates import Candidates, candidates_of_steps
from fits.design.regret import DecisionOptions
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import accounting, training_effect
from scaling.errors import InputError
from scaling.units import format_power

TOKENS_PER_PARAM = (5.0, 20.0, 80.0)
SIZES, TEACHERS = 6, 4
"""Numbers of sizes, and of teachers among the runs at most."""
STEP = 2.0
"""Ratio of neighboring sizes."""
LARGEST_SHARE = 0.5
"""Share of the spend that one run may take."""
SMALLEST_SIZE = 1e4


def ladder_for(decisions: DecisionOptions, architecture: Architecture, spend: float) -> Candidates:
    """Return runs below the sizes in question, with students of every pair of a size and a teacher.

    The largest size is that of the question, or the largest whose run of 20 tokens per parameter costs
    half of the spend; sizes fall by factors of two from there. Every size is trained on 5, 20 and 80 tokens
    per parameter, and the runs on 20 are teachers.

    Args:
        decisions: What is asked.
        architecture: Architecture that FLOPs are counted with.
        spend: FLOPs for all runs, inf for no limit.

    Raises:
        InputError: for a spend that pays for no run of the ladder.
    """
    sizes = _sizes(decisions, architecture, spend)
    if not sizes:
        raise InputError(
            f"spend: {format_power(spend)} FLOPs buy no run of {SMALLEST_SIZE:.0e} parameters or more on "
            f"{TOKENS_PER_PARAM[1]:g} tokens per parameter; spend more, or give a spec with shorter runs"
        )
    rows: list[dict[str, Any]] = []
    flops: list[float] = []
    needs: list[list[int]] = []
    for N in sizes:
        for ratio in TOKENS_PER_PARAM:
            rows.append(_row(len(rows), N, ratio * N))
            flops.append(float(architecture.training_flops(N, ratio * N)))
            needs.append([len(needs)])
    teachers = [row for row in rows if row["tokens"] == TOKENS_PER_PARAM[1] * row["params"]][:TEACHERS]
    for teacher in teachers:
        for N in sizes:
            for ratio in TOKENS_PER_PARAM:
                row = _row(len(rows), N, ratio * N) | {
                    "teacher": teacher["id"],
                    "teacher_params": teacher["params"],
                    "teacher_tokens": teacher["tokens"],
                }
                logits = float(architecture.forward_flops(teacher["params"])) * row["tokens"]
                needs.append([len(rows), int(teacher["id"])])
                flops.append(float(architecture.training_flops(N, row["tokens"])) + logits)
                rows.append(row)
    return candidates_of_steps(rows, flops, needs)


def ladder_notes(decisions: DecisionOptions, architecture: Architecture) -> list[str]:
    """Return a note on the numbers that FLOPs are counted with and nobody gave, if any."""
    largest = float(np.max(decisions.options.N))
    effect = training_effect(accounting(architecture, architecture), architecture, largest)
    return [f"{effect} Give --context, --vocab and --aspect-ratio, or --spec."] if effect else []


def _sizes(decisions: DecisionOptions, architecture: Architecture, spend: float) -> list[float]:
    """Return sizes, the largest first."""
    asked = float(np.max(decisions.options.N))
    grid = asked / STEP ** np.arange(0, max(math.log(asked / SMALLEST_SIZE, STEP), 0.0) + 1)
    cost = architecture.training_flops(grid, TOKENS_PER_PARAM[1] * grid)
    affordable = [float(N) for N in grid[cost <= LARGEST_SHARE * spend] if N >= SMALLEST_SIZE]
    return affordable[:SIZES]


def _row(number: int, N: float, D: float) -> dict[str, Any]:
    return {"id": str(number), "params": N, "tokens": D, "seed": 0}
