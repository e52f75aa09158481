"""What is wrong with the rows of a table: rows that cannot be used, and tables that cannot be trusted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.table.cells import column_called
from scaling.errors import InputError

Array = NDArray[np.float64]

FINISHED = ("done", "finished", "completed", "complete", "success", "succeeded", "ok")
UNFINISHED = (
    *("failed", "failure", "crashed", "killed", "running", "pending", "queued", "error", "cancelled"),
    *("canceled", "preempted", "aborted", "timeout", "scheduled", "stopped", "diverged"),
)
LARGEST_VOCABULARY = 2.0**18
"""Tokens of the largest tokenizers; no loss is above a uniform guess over so many, ln 2**18 = 12.5 nats."""
COMPARABLE = {
    "tokenizer": "tokenizers",
    "vocab": "vocabularies",
    "corpus": "texts",
    "setting": "settings (text, tokenizer, context, training rules)",
}
"""Columns that must say one thing of all runs, for their nats/token to be comparable."""
TEACHER_APART = 0.02
"""A teacher's loss may be this far (relative) from the loss of its own run in the same table."""
STUDENT_APART = 1.3
"""No student is, typically, this factor worse than both its teacher and the same training without one."""


def exclusions(table: pd.DataFrame) -> pd.Series[str]:
    """Why each row cannot be used, teachers apart; empty where it can."""
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
    exclude(_repeated(table), "the same row again")
    return why


def uniform_loss(table: pd.DataFrame) -> pd.Series[float]:
    """The loss of a uniform guess (rows,): ln of the vocabulary, or of the largest one if none is given."""
    vocab = pd.Series(np.nan, index=table.index)
    if "vocab" in table:
        vocab = pd.to_numeric(table["vocab"], errors="coerce").astype(np.float64)
    return pd.Series(np.log(vocab.where(vocab > 1).fillna(LARGEST_VOCABULARY)), index=table.index)


def foreign_status(status: pd.Series) -> bool:
    """Whether a column ``status`` says nothing of how runs ended."""
    said = status.dropna().astype(str).str.strip().str.lower()
    return len(said) > 0 and not said.isin([*FINISHED, *UNFINISHED]).any()


def unnamed(table: pd.DataFrame) -> pd.Series[bool]:
    """Rows without a run's name of their own."""
    return table["run"].astype(str).str.fullmatch(r"row-\d+")


def _repeated(table: pd.DataFrame) -> pd.Series[bool]:
    """Rows that say in all digits what another of the same run says; rows without a name are of one run."""
    same = ["kind", "params", "tokens", "loss", "teacher_loss", "seed", "teacher", "method"]
    key = table[[column for column in same if column in table]]
    return key.assign(run=table["run"].mask(unnamed(table), "")).duplicated() & table["loss"].notna()


def refuse_inconsistent(table: pd.DataFrame) -> None:
    """Refuse losses that cannot be compared, and runs that contradict themselves or each other."""
    used = table[table["excluded"] == ""]
    _one_measure(used)
    _runs_agree(used)
    if "teacher" in used:
        _teachers_agree(used)
    _students_in_the_same_units(used)


def _one_measure(used: pd.DataFrame) -> None:
    for column, what in COMPARABLE.items():
        values = list(used[column].dropna().unique()) if column in used else []
        if len(values) > 1:
            names = ", ".join(repr(str(value)) for value in sorted(values, key=str)[:4])
            raise InputError(
                f"{column_called(used, column)} names {len(values)} {what} ({names}): their nats/token "
                f"cannot be compared; fit one table for each. If the column means something else, "
                f"--map {column}= leaves it out"
            )


def _runs_agree(used: pd.DataFrame) -> None:
    """A run has one size, and one loss after so many tokens."""
    used = used[used.duplicated("run", keep=False)]
    for name, column in (("run", "params"), ("run", "kind")):
        counts = used.groupby(name)[column].nunique()
        if (counts > 1).any():
            run = counts.index[counts > 1][0]
            rows = ", ".join(str(i + 1) for i in used.index[used["run"] == run][:4])
            raise InputError(
                f"run {run!r} (rows {rows}): one run cannot have several {column}; if "
                f"{column_called(used, 'run')} does not name runs, --map run= leaves it out"
            )
    clash = used[used.duplicated(["run", "tokens", "seed"], keep=False)]
    if len(clash):
        run = clash["run"].iloc[0]
        rows = clash.index[clash["run"] == run]
        losses = ", ".join(f"{value:g}" for value in clash.loc[rows, "loss"].iloc[:4])
        counts = clash.loc[rows].astype(str).nunique()
        differ = [str(column) for column in counts.index[counts > 1] if column != "loss"]
        told = f"; they differ in {', '.join(map(repr, differ[:4]))}" if differ else ""
        raise InputError(
            f"run {run!r} (rows {', '.join(str(i + 1) for i in rows[:4])}): different losses after the same "
            f"tokens ({losses}{told}); give repeated seeds different run names or a column 'seed', and "
            "losses on several texts a table each"
        )


def _teachers_agree(used: pd.DataFrame) -> None:
    """A teacher whose run is in the table has the loss that its run has, at some checkpoint."""
    students = used.loc[used["kind"] == "distillation", ["teacher", "teacher_loss"]].drop_duplicates()
    students = students.assign(row=students.index + 1, teacher=students["teacher"].astype(str))
    both = students.merge(used[["run", "loss"]], left_on="teacher", right_on="run")
    both["ratio"] = both["teacher_loss"] / both["loss"]
    both["apart"] = np.abs(np.log(both["ratio"]))
    nearest = both.sort_values("apart").drop_duplicates("row")
    if len(nearest) and nearest["apart"].iloc[-1] > TEACHER_APART:
        worst = nearest.iloc[-1]
        raise InputError(
            f"row {worst['row']}, column 'teacher_loss': {worst['teacher_loss']:.4g}, but the teacher's own "
            f"run {worst['teacher']!r} has {worst['loss']:.4g} in this table ({worst['ratio']:.3f} times)"
            f"{_units(worst['ratio'])}"
        )


def _students_in_the_same_units(used: pd.DataFrame) -> None:
    alone = used[used["kind"] == "supervised"].groupby(["params", "tokens"], as_index=False)["loss"].median()
    both = used[used["kind"] == "distillation"].merge(alone, on=["params", "tokens"], suffixes=("", "_alone"))
    said = students_apart(
        *(both[name].to_numpy(np.float64) for name in ("loss", "teacher_loss", "loss_alone"))
    )
    if said:
        raise InputError(f"column 'loss': {said}")


def students_apart(loss: Array, teacher: Array, alone: Array) -> str:
    """What is wrong where distilled students are far above, or below, both their teachers and themselves
    trained alone; empty where they are not. Distillation mixes the two levels: that can only be a unit.
    """
    if not len(loss):
        return ""
    above = float(np.median(loss / np.maximum(teacher, alone)))
    below = float(np.median(loss / np.minimum(teacher, alone)))
    for ratio, where, far in (
        (above, "above", above > STUDENT_APART),
        (below, "below", below < 1 / STUDENT_APART),
    ):
        if far:
            return (
                f"the distilled students are {ratio:.2f} times, far {where}, both their teachers and the "
                f"supervised runs of the same size and tokens{_units(ratio)}"
            )
    return ""


def _units(ratio: float) -> str:
    """What a ratio of losses near that of bits to nats says."""
    bits = abs(abs(np.log(ratio)) + np.log(np.log(2))) < 0.1
    return ": one is in bits/token" if bits else "; all losses are nats/token of one held-out text"
