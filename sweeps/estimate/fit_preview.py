"""Design findings of a planned sweep: coefficients that its results will not identify."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from fits.checks.design import check_distillation, design_findings
from fits.estimation.model import Rows
from fits.findings import Finding
from fits.table.runs import validate
from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw
from sweeps.dag.expand import Dag, Step

SMALL_MODEL_CALIBRATION, SMALL_MODEL_PARAMS = "distlaw2026-permissive", 1e7
"""Calibration of models of some thousand parameters, and the size below which it is used."""
ASSUMED_TOKENS_PER_PARAM = 1000.0
"""Assumed tokens per parameter of an external model: released models are trained far beyond the 20 of
Hoffmann et al. 2022."""


def expected_findings(dag: Dag) -> list[Finding]:
    """Return the findings that ``fits`` will report on the table of this sweep.

    Losses are those of a published law. They only determine whether teachers are better than their students,
    and which losses are equal.
    """
    law = _nearest_law(dag)

    def loss(step: Step) -> float:
        return _below_a_uniform_guess(float(law.loss(step.shape.params, _tokens(step))))

    rows = [
        _row(step, loss(step), loss(step.teacher) if step.teacher else None)
        for step in dag.steps
        if step.kind.is_run
    ]
    try:
        table = validate(pd.DataFrame(rows))
    except InputError as error:
        what = f"its table would be rejected: {error}"
        return [Finding(level="refuse", message=what, remedy="Vary sizes and tokens")]
    known = Rows.of(table)
    found = design_findings(table, known, None)
    if known.n_distillations and not any(finding.level == "refuse" for finding in found):
        found += check_distillation(known, law)
    return list(dict.fromkeys(found))


def _nearest_law(dag: Dag) -> AnySupervisedLaw:
    """Return the supervised law of the published calibration closest to the sizes."""
    small = max(step.shape.params for step in dag.steps) < SMALL_MODEL_PARAMS
    return Calibration.load(SMALL_MODEL_CALIBRATION if small else DEFAULT_CALIBRATION).supervised


def _below_a_uniform_guess(loss: float) -> float:
    """Return a loss above 10 nats/token squeezed below 12, in order: laws predict such for a few steps only.

    A table with losses above those of a uniform guess over 262,144 tokens (12.48) is rejected.
    """
    return loss if loss <= 10 else 12 - 2 * math.exp((10 - loss) / 2)


def _row(step: Step, loss: float, teacher_loss: float | None) -> dict[str, Any]:
    teacher = step.teacher
    return {
        "run": step.id,
        "kind": "distillation" if teacher else "supervised",
        "params": step.shape.params,
        "tokens": step.tokens,
        "loss": loss,
        "teacher": teacher.id if teacher else None,
        "teacher_params": teacher.shape.params if teacher else None,
        "teacher_tokens": _tokens(teacher) if teacher else None,
        "teacher_loss": teacher_loss,
        "method": step.method.name if step.method else None,
        "seed": step.seed,
        "context": step.shape.context,
    }


def _tokens(step: Step) -> float:
    """Return D of a run; of an external model, the known or assumed one."""
    return (
        (step.foreign.tokens or ASSUMED_TOKENS_PER_PARAM * step.shape.params) if step.foreign else step.tokens
    )
