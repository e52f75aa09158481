"""Teachers that exist: a table of models one could distil from."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from scaling.calibration.calibration import Calibration
from scaling.costs.flops import Architecture
from scaling.errors import InputError
from scaling.open_models import find_open_model, is_post_trained, unknown_model
from scaling.units import MODEL_SIZES, check_params, parse_count, parse_quantity, unit_of


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownTeacher:
    """A model one could distil from. Its loss, or its tokens to predict that from, must be known.

    >>> from scaling import KnownTeacher
    >>> KnownTeacher(name="mine", params=1e9)
    Traceback (most recent call last):
    scaling.errors.InputError: teacher mine: give its loss, or the tokens it was trained on
    """

    name: str
    params: float
    """Non-embedding parameters, those of all experts included; they set the cost of its logits, unless one of
    the next two does."""
    loss: float | None = None
    """Held-out cross-entropy on the student's data, nats/token. A measured one beats a predicted one."""
    tokens: float | None = None
    """Tokens it was trained on; with ``params`` they predict the loss where none is given."""
    dollars_per_million_tokens: float | None = None
    """Price of its logits where somebody else serves it, US dollars."""
    vocab: int | None = None
    """Vocabulary size; token-level distillation needs the student's."""
    active_params: float | None = None
    """Parameters that a token meets, of a mixture of experts."""
    forward_flops: float | None = None
    """FLOPs a token of its forward pass, where that is known better than from its parameters."""

    def __post_init__(self) -> None:
        if self.loss is None and self.tokens is None:
            raise InputError(f"teacher {self.name}: give its loss, or the tokens it was trained on")
        for name in COLUMNS[1:]:
            value = getattr(self, name)
            if name == PRICE and value == 0:
                continue  # a price may be 0
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"teacher {self.name}: {name} must be positive and finite, not {value!r}")
        check_params(self.params, f"teacher {self.name}: params")
        if self.active_params is not None and self.active_params > self.params:
            raise InputError(
                f"teacher {self.name}: active_params ({self.active_params:g}) must be at most params "
                f"({self.params:g}), of which they are a part"
            )
        if self.active_params is not None:
            check_params(self.active_params, f"teacher {self.name}: active_params")
        if self.forward_flops is not None and self.forward_flops < MODEL_SIZES[0]:
            raise InputError(
                f"teacher {self.name}: forward_flops: {self.forward_flops:g} FLOPs a token are too few for a "
                "model; write 16e9 or 16 GFLOPs for 1.6e10"
            )
        if self.tokens is not None and self.tokens < FEWEST_TOKENS_PER_PARAM * self.params:
            raise InputError(
                f"teacher {self.name}: {self.tokens:g} tokens are too few to train {self.params:g} "
                "parameters; write 3T for 3e12"
            )

    def logit_flops(self, architecture: Architecture) -> float:
        """Return what its logits cost, FLOPs a token."""
        if self.forward_flops is not None:
            return self.forward_flops
        own = replace(architecture, active_share=1.0)  # the fitted mixtures' share is not this model's
        return float(own.forward_flops(self.active_params or self.params))


FEWEST_TOKENS_PER_PARAM = 0.01
"""Below it the tokens of a teacher are another number, such as the decimals of its loss."""
PRICE = "dollars_per_million_tokens"
COLUMNS = tuple(field.name for field in fields(KnownTeacher))
OTHER_NAMES = {
    **dict.fromkeys(("model", "teacher"), "name"),
    **dict.fromkeys(("n", "size", "parameters", "total_params", "total_parameters", "n_params"), "params"),
    **dict.fromkeys(("activated_params", "active_parameters"), "active_params"),
    **dict.fromkeys(("d", "training_tokens", "train_tokens"), "tokens"),
    **dict.fromkeys(("l", "val_loss", "heldout_loss", "cross_entropy", "teacher_loss"), "loss"),
    **dict.fromkeys(("vocab_size", "vocabulary"), "vocab"),
    "price": PRICE,
}
"""Names that people have for columns, and those of a catalogue."""


def check_teacher_loss(calibration: Calibration, loss: float, teacher: str = "the teacher") -> None:
    """Refuse a teacher's loss, nats/token, that text like the calibration's does not allow."""
    guessing = math.log(calibration.architecture.vocab)
    if loss > guessing:
        raise InputError(
            f"{teacher}: a loss of {loss:g} nats/token is above the {guessing:.3g} of guessing at "
            f"random among {calibration.architecture.vocab} tokens"
        )
    if not loss >= float(calibration.supervised.E):
        raise InputError(
            f"{teacher}: a loss of {loss:g} is below the irreducible loss of {calibration.supervised.E:.4g} "
            f"nats/token in {calibration.name}: it was measured on other text or with another tokenizer"
        )


def ask_teacher(
    name: str,
    *,
    tokens: float | None = None,
    loss: float | None = None,
    active_params: float | None = None,
    params: float | None = None,
    vocab: int | None = None,
) -> KnownTeacher:
    """Return a teacher as people speak of it: a size such as ``8B``, or the name of an open model.

    Args:
        name: Non-embedding parameters, or a name in the table.
        tokens: Tokens it was trained on, in place of the table's.
        loss: Its held-out loss on the student's data, nats/token.
        active_params: Parameters that a token meets, of a mixture of experts.
        params: N of a model whose ``name`` is neither, counted elsewhere.
        vocab: Vocabulary of such a model.

    Raises:
        InputError: For an unknown name, and where neither loss nor tokens are known.
    """
    model = None if params is not None else find_open_model(name)
    if model is not None:
        params, vocab = model.params, model.vocab
        tokens, active_params = tokens or model.tokens, active_params or model.active_params
    elif params is None:
        params = _size(name)
    if loss is None and tokens is None:
        why = "; its training tokens are not published" if model else ""
        raise InputError(
            f"teacher {name}: give the tokens it was trained on (`tokens` 15T) or its loss on the student's "
            f"data (`loss` 2.1){why}"
        )
    return KnownTeacher(
        name=model.name if model and not is_post_trained(name, model) else name,
        params=params,
        tokens=tokens,
        loss=loss,
        active_params=active_params,
        vocab=vocab,
    )


def _size(name: str) -> float:
    try:
        return parse_quantity(name, "teacher", "params")
    except InputError:
        if re.match(r"[+-]?[0-9.]", name.strip()):
            raise
        raise unknown_model(name) from None


def with_vocabulary(
    teachers: Sequence[KnownTeacher], vocab: int
) -> tuple[list[KnownTeacher], tuple[str, ...]]:
    """Return the teachers that share the student's vocabulary, or have an unknown one, and a warning.

    Raises:
        InputError: If none is left.
    """
    usable = [teacher for teacher in teachers if teacher.vocab in (None, vocab)]
    other = [f"{teacher.name} ({teacher.vocab})" for teacher in teachers if teacher not in usable]
    if not other:
        return usable, ()
    text = (
        f"left out for another vocabulary than the student's {vocab}: {', '.join(other)}; "
        "token-level distillation needs the same one"
    )
    if not usable:
        raise InputError(f"no teacher can be used: all {text} (`vocab` {teachers[0].vocab})")
    return usable, (text,)


def mixture_warnings(teachers: Sequence[KnownTeacher]) -> list[str]:
    """Return a warning of teachers that are mixtures of experts and whose loss is predicted."""
    names = [each.name for each in teachers if each.active_params and each.loss is None]
    if not names:
        return []
    return [
        f"no law here is of mixtures of experts: the loss of {', '.join(names)} is predicted as that of a "
        "dense model of all their parameters, which is optimistic: measure it and give it; logits cost what "
        "a token meets"
    ]


def shared_vocabulary(teachers: Sequence[KnownTeacher]) -> int | None:
    """Return the vocabulary that these teachers share; None where none of them says.

    Raises:
        InputError: If they have several, of which a student can have one.
    """
    sizes = {teacher.name: teacher.vocab for teacher in teachers if teacher.vocab}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} ({vocab})" for name, vocab in sizes.items())
        raise InputError(
            f"`teachers`: {told} have different vocabularies, and a student learns the distributions of its "
            "own; ask about one at a time, or give the student's (`vocab`)"
        )
    return next(iter(sizes.values()), None)


def parse_teachers(text: str, where: str = "teachers") -> tuple[KnownTeacher, ...]:
    r"""Read teachers from a text: a catalogue's table, or names and sizes separated by commas or lines.

    Raises:
        InputError: As :func:`parse_catalogue` and :func:`ask_teacher`.

    >>> [teacher.name for teacher in parse_teachers("Qwen/Qwen3-8B-Base, meta-llama/Llama-3.1-8B")]
    ['Qwen/Qwen3-8B-Base', 'meta-llama/Llama-3.1-8B']
    """
    if names := teacher_names(text):
        return tuple(ask_teacher(name) for name in names)
    return parse_catalogue(text, where)


def teacher_names(text: str) -> list[str]:
    """Return the names in a text that lists them; none where it is a catalogue's table."""
    first = text.strip().partition("\n")[0]
    if "\t" in text or {cell.strip().lower() for cell in first.split(",")} & set(COLUMNS):
        return []
    return [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]


def read_catalogue(path: str | Path) -> tuple[KnownTeacher, ...]:
    r"""Read teachers from a table.

    Args:
        path: A CSV with the fields of :class:`KnownTeacher` as columns; empty cells are unknown.

    Returns:
        The teachers, in the table's order.

    Raises:
        InputError: Naming the file, the row and what is wrong with it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from scaling import read_catalogue
    >>> path = Path(tempfile.mkdtemp()) / "teachers.csv"
    >>> _ = path.write_text("name,params,loss\nours,3B,2.1\n")
    >>> [(teacher.name, teacher.params) for teacher in read_catalogue(path)]
    [('ours', 3000000000.0)]
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from None
    return parse_catalogue(text, str(path))


def parse_catalogue(text: str, where: str = "catalogue") -> tuple[KnownTeacher, ...]:
    """Read teachers from a table's text, with commas or (as pasted from a sheet) tabs between its cells."""
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        columns = [name.strip().lower() for name in reader.fieldnames or []]
        rows = [_cells(columns, row, f"{where}, row {k}") for k, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise InputError(f"{where}: cannot be read as CSV: {error}") from None
    listed = all(find_open_model(row.get("name") or "") for row in rows)
    missing = {"name"} - set(columns) if listed else {"name", "params"} - set(columns)
    if missing:
        raise InputError(
            f"{where}: no column {', '.join(sorted(missing))}; {_renamed(columns)}a catalogue has "
            f"{', '.join(COLUMNS)}"
        )
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise InputError(
            f"{where}: unknown column {', '.join(sorted(unknown))}; {_renamed(columns)}known are "
            f"{', '.join(COLUMNS)}"
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(f"{where}: two columns are called {', '.join(twice)}; keep one of each")
    teachers = tuple(_teacher(row, f"{Path(where).name}, row {k}") for k, row in enumerate(rows, start=2))
    if not teachers:
        raise InputError(f"{where}: no teachers in it")
    return teachers


def _renamed(columns: Sequence[str]) -> str:
    """Return what to call columns that go by another name; empty if there are none."""
    advice = []
    for header in columns:
        if known := OTHER_NAMES.get(re.sub(r"[^a-z]+", "_", header).strip("_")):
            how = f"keep one of {header} and" if known in columns else f"rename {header} to"
            advice.append(f"{how} {known}{' (of all experts)' if known == 'params' else ''}; ")
    return "".join(advice)


def _cells(columns: list[str], row: dict[str | None, Any], where: str) -> dict[str, str | None]:
    if extra := [cell for cell in row.get(None) or () if cell.strip()]:
        raise InputError(
            f"{where}: more cells than columns, {', '.join(map(repr, extra))} last; write decimals with a "
            "point, and names that hold commas in quotes"
        )
    return dict(zip(columns, row.values(), strict=False))


def _teacher(row: dict[str, str | None], where: str) -> KnownTeacher:
    cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if cells["name"] and not cells["params"]:
        cells = _filled_in(cells)
    if not cells["name"] or not cells["params"]:
        raise InputError(
            f"{where}: name and params must be filled in; params may be left out for the models that "
            "`distlaw teachers` lists"
        )
    numbers = {
        name: parse_quantity(text.removeprefix("$"), f"{where}, {name}", unit_of(name), zero=name == PRICE)
        for name, text in cells.items()
        if text and name not in ("name", "vocab")
    }
    vocab = parse_count(cells["vocab"], f"{where}, vocab") if cells["vocab"] else None
    try:
        return KnownTeacher(name=cells["name"], vocab=vocab, **numbers)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _filled_in(cells: dict[str, str]) -> dict[str, str]:
    """Return the cells of an open model, by its name, with what the list knows in place of empty ones."""
    model = find_open_model(cells["name"])
    if model is None:
        return cells
    known = {"params": model.params, "tokens": model.tokens, "vocab": model.vocab}
    if not cells["active_params"]:
        known["active_params"] = model.active_params
    return cells | {
        name: repr(value) for name, value in known.items() if value is not None and not cells[name]
    }
