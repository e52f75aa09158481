"""Row checks (exclusions) and table checks (rejection of inconsistent tables)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.table.columns.cells import describe_column
from fits.table.projection import MEASURED_TOO, measured_twins
from scaling.errors import InputError

Array = NDArray[np.float64]

FINISHED = ("done", "finished", "completed", "complete", "success", "succeeded", "ok")
UNFINISHED = (
    *("failed", "failure", "crashed", "killed", "running", "pending", "queued", "error", "cancelled"),
    *("canceled", "preempted", "aborted", "timeout", "scheduled", "stopped", "diverged"),
)
LARGEST_VOCABULARY = 2.0**18
"""Vocabulary of the largest tokenizers, which bounds a loss by ln 2**18 = 12.5 nats."""
COMPARABLE = {
    "tokenizer": "tokenizers",
    "vocab": "vocabularies",
    "corpus": "texts",
    "setting": "settings (text, tokenizer, context, training rules)",
}
"""Columns that must have one value, for nats/token to be comparable between runs."""
TEACHER_LOSS_TOLERANCE = 0.02
"""Relative tolerance between a teacher's loss and the loss of its own run in the table."""
STUDENT_LOSS_FACTOR = 1.3
"""Largest ratio of the median student's loss to those of its teacher and of its supervised run."""


def exclusions(table: pd.DataFrame) -> pd.Series[str]:
    """Return the reason (rows,) why each row cannot be used, teachers aside; empty if it can."""
    why = pd.Series("", index=table.index)

    def exclude(rows: pd.Series[bool], reason: str) -> None:
        why[rows & (why == "")] = reason

    if "status" in table:
        status = table["status"].astype(str).str.strip().str.lower()
        for name in status[table["status"].notna() & ~status.isin(FINISHED)].unique():
            exclude(status == name, f"status is {name!r}")
    exclude(table["loss"].isna(), "no loss")
    exclude(np.isinf(table["loss"]), "the loss is infinite: the run diverged")
    for column in ("params", "tokens"):
        exclude(~np.isfinite(table[column]), f"no {column}")
    exclude(table["tokens"] == 0.0, "an evaluation before training (0 tokens)")
    limit = uniform_loss(table)
    for most in sorted(limit[table["loss"] > limit].unique()):
        guess = f"{most:.4g} nats/token, a uniform guess over {np.exp(most):,.0f} tokens"
        exclude((limit == most) & (table["loss"] > most), f"the loss is above {guess}")
    exclude(_duplicate_rows(table), "the same row again")
    exclude(measured_twins(table, why == ""), MEASURED_TOO)
    return why


def uniform_loss(table: pd.DataFrame) -> pd.Series[float]:
    """Return the loss of a uniform guess (rows,): ln of the vocabulary, by default the largest one."""
    vocab = pd.Series(np.nan, index=table.index)
    if "vocab" in table:
        vocab = pd.to_numeric(table["vocab"], errors="coerce").astype(np.float64)
    return pd.Series(np.log(vocab.where(vocab > 1).fillna(LARGEST_VOCABULARY)), index=table.index)


def is_foreign_status(status: pd.Series) -> bool:
    """Return True if a column ``status`` does not describe how runs ended."""
    values = status.dropna().astype(str).str.strip().str.lower()
    return len(values) > 0 and not values.isin([*FINISHED, *UNFINISHED]).any()


def unnamed_rows(table: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of the rows without a run's name."""
    return table["run"].astype(str).str.fullmatch(r"row-\d+")


def _duplicate_rows(table: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of rows that repeat an earlier one of the same run exactly."""
    same = ["kind", "params", "tokens", "loss", "teacher_loss", "seed", "teacher", "method"]
    key = table[[column for column in same if column in table]]
    return key.assign(run=table["run"].mask(unnamed_rows(table), "")).duplicated() & table["loss"].notna()


def refuse_inconsistent(table: pd.DataFrame) -> None:
    """Reject losses that cannot be compared, and runs that contradict themselves or each other."""
    used = table[table["excluded"] == ""]
    _refuse_incomparable(used)
    _refuse_contradictory_runs(used)
    if "teacher" in used:
        _refuse_contradictory_teachers(used)
    _refuse_unit_mismatch(used)


def _refuse_incomparable(used: pd.DataFrame) -> None:
    for column, what in COMPARABLE.items():
        values = list(used[column].dropna().unique()) if column in used else []
        if len(values) > 1:
            names = ", ".join(repr(str(value)) for value in sorted(values, key=str)[:4])
            raise InputError(
                f"{describe_column(used, column)} names {len(values)} {what} ({names}): their nats/token "
                f"cannot be compared; fit one table for each. If the column means something else, "
                f"exclude it with --map {column}="
            )


def _refuse_contradictory_runs(used: pd.DataFrame) -> None:
    """Check that a run has one size and one loss per token count."""
    used = used[used.duplicated("run", keep=False)]
    for name, column in (("run", "params"), ("run", "kind")):
        counts = used.groupby(name)[column].nunique()
        if (counts > 1).any():
            run = counts.index[counts > 1][0]
            rows = ", ".join(str(i + 1) for i in used.index[used["run"] == run][:4])
            raise InputError(
                f"run {run!r} (rows {rows}): one run cannot have several {column}; if "
                f"{describe_column(used, 'run')} does not name runs, exclude it with --map run="
            )
    clash = used[used.duplicated(["run", "tokens", "seed"], keep=False)]
    if len(clash):
        run = clash["run"].iloc[0]
        rows = clash.index[clash["run"] == run]
        losses = ", ".join(f"{value:g}" for value in clash.loc[rows, "loss"].iloc[:4])
        counts = clash.loc[rows].astype(str).nunique()
        differ = [str(column) for column in counts.index[counts > 1] if column != "loss"]
        difference = f"; they differ in {', '.join(map(repr, differ[:4]))}" if differ else ""
        raise InputError(
            f"run {run!r} (rows {', '.join(str(i + 1) for i in rows[:4])}): different losses after the same "
            f"tokens ({losses}{difference}); give different seeds different run names or a column 'seed', "
            "and fit losses on several texts in separate tables"
        )


def _refuse_contradictory_teachers(used: pd.DataFrame) -> None:
    """Check that a teacher's loss is that of its run in the table, at some checkpoint."""
    students = used.loc[used["kind"] == "distillation", ["teacher", "teacher_loss"]].drop_duplicates()
    students = students.assign(row=students.index + 1, teacher=students["teacher"].astype(str))
    both = students.merge(used[["run", "loss"]], left_on="teacher", right_on="run")
    both["ratio"] = both["teacher_loss"] / both["loss"]
    both["log_ratio"] = np.abs(np.log(both["ratio"]))
    nearest = both.sort_values("log_ratio").drop_duplicates("row")
    if len(nearest) and nearest["log_ratio"].iloc[-1] > TEACHER_LOSS_TOLERANCE:
        worst = nearest.iloc[-1]
        raise InputError(
            f"row {worst['row']}, column 'teacher_loss': {worst['teacher_loss']:.4g}, but the teacher's own "
            f"run {worst['teacher']!r} has {worst['loss']:.4g} in this table ({worst['ratio']:.3f} times)"
            f"{_unit_hint(worst['ratio'])}"
        )


def _refuse_unit_mismatch(used: pd.DataFrame) -> None:
    alone = used[used["kind"] == "supervised"].groupby(["params", "tokens"], as_index=False)["loss"].median()
    both = used[used["kind"] == "distillation"].merge(alone, on=["params", "tokens"], suffixes=("", "_alone"))
    mismatch = unit_mismatch_of_students(
        *(both[name].to_numpy(np.float64) for name in ("loss", "teacher_loss", "loss_alone"))
    )
    if mismatch:
        raise InputError(f"column 'loss': {mismatch}")


def unit_mismatch_of_students(loss: Array, teacher: Array, alone: Array) -> str:
    """Describe students whose loss is far above, or below, both references; empty if it is between them.

    The references are the teacher and the supervised run of the same size and tokens. Only a difference of
    units puts a distilled student far outside of both.
    """
    if not len(loss):
        return ""
    above = float(np.median(loss / np.maximum(teacher, alone)))
    below = float(np.median(loss / np.minimum(teacher, alone)))
    for ratio, where, far in (
        (above, "above", above > STUDENT_LOSS_FACTOR),
        (below, "below", below < 1 / STUDENT_LOSS_FACTOR),
    ):
        if far:
            return (
                f"the distilled students are {ratio:.2f} times, far {where}, both their teachers and the "
                f"supervised runs of the same size and tokens{_unit_hint(ratio)}"
            )
    return ""


def _unit_hint(ratio: float) -> str:
    """Describe a ratio of losses near that of bits to nats."""
    bits = abs(abs(np.log(ratio)) + np.log(np.log(2))) < 0.1
    return ": one is in bits/token" if bits else "; all losses must be nats/token of one held-out text"
