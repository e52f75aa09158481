"""Runs that could be trained, and what each costs: shared steps such as a teacher are paid for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fits.design.points import Points
from fits.table.projection import PROJECTED_SD

Array = NDArray[np.float64]
KEY = ("kind", "params", "tokens", "teacher_params", "teacher_tokens")
"""Columns that make a configuration: runs of one differ by their seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Runs that could be trained next. Arrays are (n,), steps (s,)."""

    points: Points
    needs: csr_matrix
    """(n, s): 1 for each step that a run needs, its own included."""
    step_flops: Array
    """FLOPs of each step."""
    teacher: NDArray[np.intp]
    """Index of the candidate that is the run's teacher; -1 if there is none, or it is no candidate."""
    configuration: NDArray[np.intp]
    """Number that the seeds of one configuration share."""
    seed: NDArray[np.intp]
    ids: tuple[str, ...]
    """Identity of each run: the id of its step, or its row."""
    extra_sd: Array
    """Standard deviation of ln loss beyond the noise of a run: zero unless the loss is projected."""

    def __len__(self) -> int:
        return len(self.points)

    def variance(self, sigma: float) -> Array:
        """Return the variance of the measured ln loss of each run around the law."""
        return np.asarray(sigma**2 + self.extra_sd**2)

    @property
    def measured_otherwise(self) -> NDArray[np.bool_]:
        """True for projected losses of runs that could be measured as well, (n,)."""
        measured = np.unique(self.configuration[self.extra_sd == 0.0])
        return np.asarray((self.extra_sd > 0.0) & np.isin(self.configuration, measured))

    def superseded(self, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which projected losses are of runs that were measured, (n,): no fit would use them."""
        projected = self.extra_sd > 0.0
        if not projected.any():
            return projected
        runs = np.stack([self.configuration, self.seed], axis=1)
        run = np.unique(runs, axis=0, return_inverse=True)[1].ravel()
        return np.asarray(projected & np.isin(run, run[there & ~projected]))

    def cost(self, paid: NDArray[np.bool_]) -> Array:
        """Return the FLOPs of each run, (n,), where the steps ``paid`` (s,) are done."""
        return np.asarray(self.needs @ np.where(paid, 0.0, self.step_flops))

    def done(self, paid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which runs are there, (n,), once the steps ``paid`` (s,) are done."""
        return np.asarray(self.needs @ (~paid).astype(np.float64) == 0)

    def steps_of(self, run: int) -> NDArray[np.intp]:
        """Return the steps that a run needs."""
        return self.needs.indices[self.needs.indptr[run] : self.needs.indptr[run + 1]].astype(np.intp)

    def with_teachers_measured(self, losses: dict[int, float]) -> Candidates:
        """Return the candidates with the losses of teachers that were trained, by index of the teacher."""
        L_T = self.points.L_T.copy()
        for teacher, loss in losses.items():
            L_T[self.teacher == teacher] = loss
        return replace(self, points=replace(self.points, L_T=L_T))


def candidates_of_steps(
    rows: Sequence[dict[str, Any]], steps: Sequence[float] | Array, needs: Sequence[Sequence[int]]
) -> Candidates:
    """Return candidates of runs, and of the steps that they need.

    Args:
        rows: One mapping a run: ``id``, ``params``, ``tokens``, ``seed``, and of a distillation ``teacher``
            (the id of its run), ``teacher_params``, ``teacher_tokens`` or ``teacher_loss`` where measured; of
            a loss that is projected, ``projected_sd``.
        steps: FLOPs of each step.
        needs: Indices of the steps that each run needs.
    """
    table = pd.DataFrame(rows).reindex(
        columns=[
            "id",
            "params",
            "tokens",
            "seed",
            "method",
            "teacher",
            "teacher_params",
            "teacher_tokens",
            "teacher_loss",
            PROJECTED_SD,
        ]
    )
    numbers = {
        name: table[name].to_numpy(np.float64)
        for name in ("params", "tokens", "teacher_loss", "teacher_params", "teacher_tokens")
    }
    index = {identity: i for i, identity in enumerate(table["id"])}
    of = (
        table[["params", "tokens", "method", "teacher"]]
        .astype(object)
        .where(table[["params", "tokens", "method", "teacher"]].notna(), "")
    )
    columns: NDArray[np.intp] = (
        np.concatenate([np.asarray(each, dtype=np.intp) for each in needs])
        if len(needs)
        else np.empty(0, np.intp)
    )
    pointer = np.cumsum([0, *(len(each) for each in needs)])
    return Candidates(
        points=Points.of(
            numbers["params"], numbers["tokens"], numbers["teacher_loss"], numbers["teacher_params"],
            numbers["teacher_tokens"],
        ),
        needs=csr_matrix((np.ones(len(columns)), columns, pointer), shape=(len(table), len(steps))),
        step_flops=np.asarray(steps, dtype=np.float64),
        teacher=np.array([index.get(each, -1) for each in table["teacher"]], dtype=np.intp),
        configuration=of.groupby(list(of.columns), sort=False).ngroup().to_numpy().astype(np.intp),
        seed=table["seed"].fillna(0).to_numpy().astype(np.intp),
        ids=tuple(map(str, table["id"])),
        extra_sd=table[PROJECTED_SD].fillna(0.0).to_numpy(np.float64),
    )  # fmt: skip


def candidates_of_table(table: pd.DataFrame, *, measured: bool = False) -> Candidates:
    """Return the runs of a table as candidates, for replays: each costs its ``flops``.

    Args:
        table: Runs with ``flops``, as ``distlaw sweep results`` writes them.
        measured: Take the teachers' losses of the table for known before they are trained.
    """
    table = table.reset_index(drop=True)
    runs = {str(run): i for i, run in enumerate(table["run"])}
    rows = [
        {
            "id": str(row["run"]),
            "params": row["params"],
            "tokens": row["tokens"],
            "seed": row.get("seed", 0),
            "method": row.get("method"),
            "teacher": row["teacher"] if row["kind"] == "distillation" else None,
            "teacher_params": row["teacher_params"],
            "teacher_tokens": row["teacher_tokens"],
            "teacher_loss": row["teacher_loss"] if measured else np.nan,
        }
        for row in table.to_dict("records")
    ]
    needs = [[i, *([runs[row["teacher"]]] if row["teacher"] in runs else [])] for i, row in enumerate(rows)]
    return candidates_of_steps(rows, table["flops"].to_numpy(np.float64), needs)
