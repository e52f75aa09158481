"""Export of a fit as a calibration for the planner."""

from __future__ import annotations

import datetime
import importlib.metadata
from typing import TYPE_CHECKING

import numpy as np

from fits.estimation.settings import rejections
from fits.table.flops import table_architecture
from scaling.calibration.calibration import Calibration
from scaling.calibration.provenance import Provenance
from scaling.calibration.region import Range, Region

if TYPE_CHECKING:
    import pandas as pd

    from fits.fitting import Fit


def to_calibration(fit: Fit) -> Calibration:
    """Return the laws, draws, region and provenance of a fit as a calibration."""
    warnings = [str(finding) for finding in fit.findings]
    warnings += [
        f"{law}: {found.status} ({found.detail})" if found.detail else f"{law}: {found.status}"
        for law, found in fit.estimates.items()
        if found.status != "converged"
    ]
    warnings += rejections(fit.recipe)
    return Calibration(
        name=fit.name,
        supervised=fit.supervised,
        size=fit.size.size if fit.size else "",
        distillation=dict(fit.distillation),
        default=fit.default,
        law_weights=fit.evidence.weights if fit.evidence else {},
        draws={law: dict(columns) for law, columns in fit.draws.items()},
        region=region(fit),
        repetition=fit.repetition,
        residual_sd=residual_sd(fit),
        misfit=dict(fit.misfit),
        architecture=table_architecture(fit.table, fit.architecture),
        provenance=Provenance(
            source=fit.source or fit.name,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            software={name: importlib.metadata.version(name) for name in ("distlaw", "numpy", "scipy")},
            corpus=_single_value(fit.table, "corpus"),
            tokenizer=_single_value(fit.table, "tokenizer"),
            notes=(
                *(note for note in fit.notes if note not in warnings),
                *((f"supervised law: {fit.given}",) if fit.given else ()),
            ),
            warnings=tuple(warnings),
        ),
    )


def region(fit: Fit) -> Region:
    """Return the smallest and largest value of each variable among the fitted runs."""
    used = fit.table[fit.table["excluded"] == ""]
    supervised, distilled = used[used["kind"] == "supervised"], used[used["kind"] == "distillation"]
    ratio = distilled["teacher_loss"] / fit.supervised.loss(distilled["params"], distilled["tokens"])
    return Region(
        params=_range(supervised, "params"),
        tokens=_range(supervised, "tokens"),
        student_params=_range(distilled, "params"),
        student_tokens=_range(distilled, "tokens"),
        teacher_params=_range(distilled, "teacher_params"),
        teacher_tokens=_range(distilled, "teacher_tokens"),
        teacher_loss=_range(distilled, "teacher_loss"),
        teacher_loss_ratio=_range(distilled.assign(ratio=ratio), "ratio"),
        runs={"supervised": len(supervised), "distillation": len(distilled)},
    )


def residual_sd(fit: Fit) -> dict[str, float]:
    """Return the rms of observed minus predicted loss, nats/token, by law."""
    found: dict[str, float] = {}
    for law, estimate in fit.estimates.items():
        rows = estimate.model.rows
        residual = rows.L - estimate.losses
        if rows.n_supervised:
            found.setdefault("supervised", float(np.sqrt(np.mean(residual[: rows.n_supervised] ** 2))))
        if rows.n_distillations:
            found[law] = float(np.sqrt(np.mean(residual[rows.n_supervised :] ** 2)))
    return found


def _range(table: pd.DataFrame, column: str) -> Range | None:
    if column not in table or not table[column].notna().any():
        return None
    return float(table[column].min()), float(table[column].max())


def _single_value(table: pd.DataFrame, column: str) -> str:
    names = list(table[column].dropna().unique()) if column in table else []
    return str(names[0]) if len(names) == 1 else ""
