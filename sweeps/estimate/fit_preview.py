"""What a planned sweep will and will not be able to identify, judged as its results will be."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fits.checks.design import check_distillation, design_findings
from fits.estimation.model import Rows
from fits.table.findings import Finding
from fits.table.runs import validate
from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration
from scaling.errors import InputError
from scaling.laws import SupervisedLaw
from sweeps.dag.expand import Dag, Step

SMALL_MODELS, SMALL = "distlaw2026-permissive", 1e7
"""A calibration of models of some thousand parameters, and the size below which it is nearer."""
USUAL_RATIO = 1000.0
"""Tokens per parameter of a model from elsewhere whose training is not known: models that are released were
trained far beyond the 20 of Hoffmann et al. 2022."""


def foreseen(dag: Dag) -> list[Finding]:
    """What ``fits`` will object to in the table of this sweep.

    There are no losses yet: those of a published law stand in for them. They only decide on which side of
    their students the teachers lie, and which losses are alike.
    """
    law = _nearest_law(dag)

    def loss(step: Step) -> float:
        return float(law.loss(step.shape.params, _tokens(step)))

    rows = [
        _row(step, loss(step), loss(step.teacher) if step.teacher else None)
        for step in dag.steps
        if step.kind.is_run
    ]
    try:
        table = validate(pd.DataFrame(rows))
    except InputError as error:
        what = f"its table would be refused: {error}"
        return [Finding(level="refuse", message=what, remedy="Vary sizes and tokens")]
    known = Rows.of(table)
    found = design_findings(table, known, None)
    if known.n_distillations and not any(finding.level == "refuse" for finding in found):
        found += check_distillation(known, law)
    return list(dict.fromkeys(found))


def _nearest_law(dag: Dag) -> SupervisedLaw:
    """Return the published law fitted nearest to the sizes; large models say nothing of the smallest."""
    small = max(step.shape.params for step in dag.steps) < SMALL
    return Calibration.load(SMALL_MODELS if small else DEFAULT_CALIBRATION).supervised


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
    """D of a run, or as far as it is known of a model from elsewhere."""
    return (step.foreign.tokens or USUAL_RATIO * step.shape.params) if step.foreign else step.tokens
