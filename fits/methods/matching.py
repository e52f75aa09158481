"""Matched pairs: each run of a method with the run of the control that differs in nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fits.estimation.joint import SUPERVISED
from scaling.errors import InputError

DEFAULT_CONTROLS = (SUPERVISED, "forward-kl")
"""Default controls; the last one that the table has."""
MATCHED = ("params", "tokens", "teacher_name")
"""Columns, besides the seed, in which a run equals its control; the teacher only where both have one."""
LOGARITHMS = ("ln_loss", "ln_flops")
"""Columns that are compared between a run and its control."""


def last_checkpoints_by_method(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last usable row of each run of a validated table, with the columns that pairs need.

    Adds ``method_or_supervised``; ``teacher_name``, the teacher by name or else by its loss; and logarithms
    of loss and FLOPs, ``ln_loss`` and ``ln_flops``.

    Raises:
        InputError: for a distillation that does not name its method.
    """
    used = table[table["excluded"] == ""]
    used = (
        used.sort_values("tokens", kind="stable").drop_duplicates(["run", "seed"], keep="last").sort_index()
    )
    distilled = used["kind"] == "distillation"
    if distilled.any() and "method" not in used:
        raise InputError(
            "no column 'method' with the method of each distillation; map another column to it with "
            "--map method=COLUMN"
        )
    method = used["method"] if "method" in used else pd.Series(None, index=used.index, dtype=object)
    nameless = used.index[distilled & method.isna()]
    if len(nameless):
        raise InputError(f"row {nameless[0] + 1}, column 'method': empty for a distillation; give its method")
    teacher = used["teacher"] if "teacher" in used else pd.Series(np.nan, index=used.index)
    by_loss = used["teacher_loss"].map("teacher of loss {:.6g}".format)
    return used.assign(
        method_or_supervised=method.astype(str).where(distilled, SUPERVISED),
        teacher_name=teacher.astype(object).where(teacher.notna(), by_loss).astype(str).where(distilled, ""),
        ln_loss=np.log(used["loss"]),
        ln_flops=np.log(used["flops"].where(used["flops"] > 0.0)) if "flops" in used else np.nan,
    )


def choose_control(runs: pd.DataFrame, asked: str | None) -> str:
    """Return the method that others are compared with.

    Raises:
        InputError: if the table has no such method, or no other one.
    """
    methods = sorted(runs["method_or_supervised"].unique())
    methods_found = f"the table has {', '.join(methods)}"
    if asked is not None and asked not in methods:
        raise InputError(f"no run of the control {asked!r}; {methods_found}")
    found = asked or next((name for name in reversed(DEFAULT_CONTROLS) if name in methods), None)
    if found is None:
        raise InputError(f"no run is supervised or of forward-kl: name the control; {methods_found}")
    if len(methods) == 1:
        raise InputError(f"every usable run is {found}: no other method to compare with it")
    return found


def match_to_control(runs: pd.DataFrame, method: str, control: str) -> pd.DataFrame:
    """Match the runs of a method to the runs of the control.

    The control of a run has the same size, tokens and teacher, and the same seed where there is such a run;
    otherwise the geometric mean over all seeds of the control is used.

    Returns:
        One row for each pair. ``same_seed`` is true where the seeds agree, ``cell`` numbers configurations,
        ``delta_log_loss`` is the difference of ln loss (method - control) and ``flops_ratio`` the ratio of
        FLOPs (method / control).
    """
    cell = [name for name in MATCHED if name != "teacher_name" or SUPERVISED not in (method, control)]
    of_control, columns = runs[runs["method_or_supervised"] == control], list(LOGARITHMS)
    pairs = runs[runs["method_or_supervised"] == method]
    seeded = of_control.groupby([*cell, "seed"])[columns].mean().add_suffix("_seed")
    every = of_control.groupby(cell)[columns].mean().add_suffix("_cell")
    pairs = pairs.join(every, on=cell, how="inner").join(seeded, on=[*cell, "seed"])
    same = pairs["ln_loss_seed"].notna()
    other = {name: pairs[f"{name}_seed"].where(same, pairs[f"{name}_cell"]) for name in columns}
    return pd.DataFrame(
        {
            "method": method,
            **{name: pairs[name] for name in ("run", "params", "tokens", "teacher_name", "seed", "loss")},
            "control_loss": np.exp(other["ln_loss"]),
            "same_seed": same,
            "cell": pairs.groupby(cell).ngroup(),
            "delta_log_loss": pairs["ln_loss"] - other["ln_loss"],
            "flops_ratio": np.exp(pairs["ln_flops"] - other["ln_flops"]),
        }
    )
