"""Results of a command: its ``result.json``, or the log of its trainer, which ``fits.logs`` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fits.logs.rows import RowOptions
from fits.logs.single import read_run_result
from fits.table.columns.column_names import SYMBOLS
from scaling.errors import InputError
from sweeps.external.result import ReportedResult, parse_result, read_result
from sweeps.spec.trainer import RESULT_FILE, Collect, Trainer

MAP_OPTION = re.compile(r"--map '?(\w+)=([^\s;,']+)'?")
OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)+|map)\b")
LOGGED = "as its trainer logged it"
"""Text of the runs table for a loss from a log whose spec does not say on what it was measured."""


def collect_result(trainer: Trainer, values: Mapping[str, str], output: Path) -> tuple[ReportedResult, Path]:
    """Read what a command has left; return it, and its file.

    Args:
        trainer: The trainer.
        values: Values of the placeholders.
        output: File with the command's output.

    Raises:
        InputError: if it has left nothing, or something else than a result.
    """
    how = trainer.collect
    if how is None:
        path = Path(RESULT_FILE.format_map(values))
        left_model_only = trainer.model and not path.exists()
        return ReportedResult() if left_model_only else read_result(path), path
    path = output if how.regex else Path(getattr(how, how.form).format_map(values))
    where = f"collect.{how.form}"
    found = _read_log(how, path, where, needs_all=not trainer.model)
    return parse_result(found, f"{where}: {path}"), path


def _read_log(how: Collect, path: Path, where: str, *, needs_all: bool) -> dict[str, Any]:
    """Return the fields of a result from the log at ``path``."""
    try:
        options = RowOptions(
            points=how.take,
            mapping={{"flops": "compute"}.get(column, column): name for column, name in how.map.items()},
            loss_unit=how.loss_unit,
            bytes_per_token=how.bytes_per_token,
            tokens_per_step=how.tokens_per_step,
        )
        row = read_run_result(path, how.form, how.regex or "", options)
    except InputError as error:
        raise InputError(f"{where}: {as_fields(str(error))}") from None
    if row.cut_off:
        raise InputError(
            f"{where}: {path}: its last line is cut off ({row.cut_off}), although the command ended with 0: "
            "its last loss is not there; write whole lines, and end them before the command ends"
        )
    if row.status == "diverged":
        raise InputError(f"{where}: {path}: its last loss is no finite number; lower its learning rate")
    lacking = [name for name, value in (("params", row.params), ("loss", row.loss)) if value is None]
    if needs_all and lacking:
        why = [as_fields(reason) for reason in row.missing if reason.partition(":")[0] in lacking]
        raise InputError(f"{where}: {path}: {'; '.join(why) or f'no {lacking[0]} in the log'}")
    found: dict[str, Any] = {"params": row.params, "tokens": row.tokens, "loss": row.loss}
    found |= {"flops": row.others.get("compute"), "loss_se": row.others.get("loss_se")}
    for name, mapped in how.map.items():
        if found.get(name) is None:
            why = [as_fields(reason) for reason in row.missing if reason.startswith(f"{name}:")]
            raise InputError(f"{where}: {path}: map: {'; '.join(why) or f'{name}: no {mapped!r} in the log'}")
    if how.tokens_per_step and row.tokens is None:
        raise InputError(f"{where}: {path}: tokens_per_step: no tokens follow from {how.tokens_per_step!r}")
    told = {"loss_on": how.loss_on or LOGGED} if row.loss is not None else {}
    return {name: value for name, value in found.items() if value is not None} | told


def as_fields(sentence: str) -> str:
    """Return a sentence on a log with the fields of ``collect`` in place of options of the command line.

    >>> as_fields("params: no model files; name it: --map N=...")
    'params: no model files; name it: map: {params: NAME}'
    >>> as_fields("tokens: not counted; --tokens-per-step 65536")
    'tokens: not counted; tokens_per_step: 65536'
    """
    sentence = MAP_OPTION.sub(
        lambda found: f"map: {{{SYMBOLS.get(found[1], found[1])}: {found[2].replace('...', 'NAME')}}}",
        sentence,
    )
    return OPTION.sub(lambda found: f"{found[1].replace('-', '_')}:", sentence)
