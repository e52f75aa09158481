"""Runs of a method beside runs of the control that differ in nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fits.estimation.joint import SUPERVISED
from scaling.errors import InputError

ORDINARY = (SUPERVISED, "forward-kl")
"""The usual controls; the later one where a table has both."""
MATCHED = ("params", "tokens", "taught_by")
"""What a run and its control share, but for the seed; where one of the two has no teacher, not that."""
MEASURED = ("ln_loss", "ln_flops")


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    """The usable rows of a validated table, of each run the last, with what pairs are made of.

    Adds ``way``, the method or "supervised", ``taught_by``, the teacher by name or else by its loss, and the
    logarithms of loss and FLOPs. Raises InputError for a distillation that does not name its method.
    """
    used = table[table["excluded"] == ""]
    used = (
        used.sort_values("tokens", kind="stable").drop_duplicates(["run", "seed"], keep="last").sort_index()
    )
    distilled = used["kind"] == "distillation"
    if distilled.any() and "method" not in used:
        raise InputError(
            "no column 'method' says how each student was distilled; say which of yours does, with "
            "--map method=COLUMN"
        )
    method = used["method"] if "method" in used else pd.Series(None, index=used.index, dtype=object)
    nameless = used.index[distilled & method.isna()]
    if len(nameless):
        raise InputError(f"row {nameless[0] + 1}, column 'method': this distillation names no method")
    teacher = used["teacher"] if "teacher" in used else pd.Series(np.nan, index=used.index)
    by_loss = used["teacher_loss"].map("teacher of loss {:.6g}".format)
    return used.assign(
        way=method.astype(str).where(distilled, SUPERVISED),
        taught_by=teacher.astype(object).where(teacher.notna(), by_loss).astype(str).where(distilled, ""),
        ln_loss=np.log(used["loss"]),
        ln_flops=np.log(used["flops"].where(used["flops"] > 0.0)) if "flops" in used else np.nan,
    )


def control_of(runs: pd.DataFrame, asked: str | None) -> str:
    """The method that others are compared with; raises InputError where there is none, or no other."""
    ways = sorted(runs["way"].unique())
    there = f"the table has {', '.join(ways)}"
    if asked is not None and asked not in ways:
        raise InputError(f"no run is of the control {asked!r}; {there}")
    found = asked or next((name for name in reversed(ORDINARY) if name in ways), None)
    if found is None:
        raise InputError(f"no run is supervised or of forward-kl: name the control; {there}")
    if len(ways) == 1:
        raise InputError(f"every usable run is {found}: there is no method to compare with it")
    return found


def matched(runs: pd.DataFrame, way: str, control: str) -> pd.DataFrame:
    """The runs of ``way`` that have a control, one a row, beside it.

    The control of a run has its size, tokens and teacher, and its seed where there is one such: else the
    controls of all seeds count with their geometric mean. ``same_seed`` says which, ``cell`` numbers what is
    shared but for the seed, ``apart`` is the difference of ln loss and ``dearer`` the ratio of FLOPs.
    """
    cell = [name for name in MATCHED if name != "taught_by" or SUPERVISED not in (way, control)]
    of_control, columns = runs[runs["way"] == control], list(MEASURED)
    pairs = runs[runs["way"] == way]
    seeded = of_control.groupby([*cell, "seed"])[columns].mean().add_suffix("_seed")
    every = of_control.groupby(cell)[columns].mean().add_suffix("_cell")
    pairs = pairs.join(every, on=cell, how="inner").join(seeded, on=[*cell, "seed"])
    same = pairs["ln_loss_seed"].notna()
    other = {name: pairs[f"{name}_seed"].where(same, pairs[f"{name}_cell"]) for name in columns}
    return pd.DataFrame(
        {
            "method": way,
            **{name: pairs[name] for name in ("run", "params", "tokens", "taught_by", "seed", "loss")},
            "control_loss": np.exp(other["ln_loss"]),
            "same_seed": same,
            "cell": pairs.groupby(cell).ngroup(),
            "apart": pairs["ln_loss"] - other["ln_loss"],
            "dearer": np.exp(pairs["ln_flops"] - other["ln_flops"]),
        }
    )
