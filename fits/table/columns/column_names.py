"""Canonical column names of a runs table, their synonyms, and matching of headers to them.

:data:`SYNONYMS` is the one list of names that are understood without ``--map``. Case, spaces and punctuation
are ignored (``Val/Loss`` is ``val_loss``); a unit in the header is applied (``tokens (B)``,
``params_millions``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from fits.table.columns.units_in_headers import loss_unit_of, split_unit, without_loss_unit
from scaling.errors import InputError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "params": (
        *("n_params", "num_params", "params_count", "param_count", "parameters", "n_parameters"),
        *("num_parameters", "parameter_count", "model_size", "model_params", "model_parameters"),
        *("non_embedding_params", "params_non_embedding", "n_params_non_embedding", "params_nonembed"),
        *("non_embedding_parameters", "student_params", "student_parameters", "student_params_nonembed"),
    ),
    "active_params": (
        *("n_active_params", "num_active_params", "params_active", "active_parameters"),
        *("activated_params", "activated_parameters", "n_activated_params", "params_activated"),
        *("active_non_embedding_params", "non_embedding_active_params"),
    ),
    "total_params": (
        *("n_total_params", "num_total_params", "total_parameters", "total_parameter_count"),
        *("total_non_embedding_params", "non_embedding_total_params"),
    ),
    "tokens": (
        *("n_tokens", "num_tokens", "token_count", "tokens_seen", "num_tokens_seen", "seen_tokens"),
        *("train_tokens", "training_tokens", "tokens_trained", "trained_tokens", "tokens_processed"),
        *("consumed_tokens", "total_tokens", "student_tokens", "distill_tokens"),
    ),
    "loss": (
        *("val_loss", "loss_val", "valid_loss", "validation_loss", "eval_loss", "loss_eval", "test_loss"),
        *("heldout_loss", "held_out_loss", "loss_nats", "val_loss_nats", "eval_loss_nats", "cross_entropy"),
        *("val_cross_entropy", "eval_cross_entropy", "student_loss", "student_val_loss"),
    ),
    "loss_se": ("loss_stderr", "loss_std_err", "loss_standard_error", "val_loss_se", "val_loss_stderr"),
    "projected_sd": (),
    "compute": (
        *("flop", "train_flops", "training_flops", "training_flop", "train_flop", "flops_train"),
        *("train_compute", "training_compute", "compute_flops", "flops_budget", "compute_budget"),
    ),
    "teacher_params": ("teacher_n_params", "teacher_parameters", "teacher_size", "teacher_model_size"),
    "teacher_tokens": ("teacher_n_tokens", "teacher_tokens_seen", "teacher_train_tokens"),
    "teacher_loss": (
        *("teacher_val_loss", "teacher_eval_loss", "teacher_validation_loss", "teacher_loss_nats"),
        *("teacher_test_loss", "teacher_cross_entropy", "loss_teacher"),
    ),
    "teacher": ("teacher_run", "teacher_id", "teacher_run_id", "teacher_name", "teacher_run_name"),
    "run": ("run_id", "wandb_run_id", "run_name"),
    "kind": (),
    "method": ("distillation_method", "distill_method"),
    "seed": ("random_seed", "rng_seed"),
    "status": ("state", "run_status"),
    "epochs": ("n_epochs", "num_epochs", "epoch"),
    "unique_tokens": ("n_unique_tokens", "num_unique_tokens", "unique_training_tokens", "tokens_unique"),
    "vocab": (
        *("vocab_size", "n_vocab", "vocabulary", "vocabulary_size", "padded_vocab_size"),
        "tokenizer_vocab_size",
    ),
    "context": (
        *("context_length", "context_size", "n_ctx", "ctx_len", "seq_len", "seq_length", "sequence_length"),
        *("max_seq_len", "max_seq_length", "block_size"),
    ),
    "aspect_ratio": (),
    "corpus": (),
    "tokenizer": ("tokenizer_name",),
    "setting": (),
    "bits_per_byte": (),
    "flops": (),
    "seconds": (),
    "loss_bits": (),
    "teacher_loss_bits": (),
}
"""Canonical columns with their synonyms; the first one found is used."""
SYMBOLS = {
    "N": "params", "D": "tokens", "L": "loss", "C": "compute", "N_T": "teacher_params",
    "D_T": "teacher_tokens", "L_T": "teacher_loss", "N_S": "params", "D_S": "tokens", "L_S": "loss",
    "NT": "teacher_params", "DT": "teacher_tokens", "LT": "teacher_loss", "NS": "params", "DS": "tokens",
    "LS": "loss",
}  # fmt: skip
"""Symbols of the papers, case-sensitive."""
UNAMBIGUOUS = (
    "params",
    "active_params",
    "total_params",
    "tokens",
    "loss",
    "loss_se",
    "compute",
    "teacher_params",
    "teacher_tokens",
    "teacher_loss",
)
"""Canonical columns that only one header may match; with several, ``--map`` has to choose."""
WANDB_COLUMNS = {"run": ("ID", "Name"), "status": ("State",)}
"""Headers of exported W&B tables, which have a column ``State``."""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): canonical for canonical, names in SYNONYMS.items() for name in (canonical, *names)}
_GROUP = re.compile(r"(?i)(config|summary|params|metrics|hparams)[./]")
"""Prefixes of names in W&B, MLflow and Lightning."""


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """Header that is read as a canonical column."""

    header: str
    scale: float = 1.0
    """Factor of numbers without their own unit."""
    stated: bool = False
    """True if ``--map`` gives the unit."""
    symbol: bool = False
    """True if the header is one letter, which may mean something else."""


@dataclass(slots=True)
class ColumnMapping:
    """Mapping from canonical columns to the headers of a table."""

    sources: dict[str, HeaderMatch] = field(default_factory=dict)
    """Headers by canonical column."""
    set_aside: set[str] = field(default_factory=set)
    """Headers with the name of a canonical column that are not read as it."""

    def new_names(self, headers: Sequence[str]) -> list[str]:
        """Return the headers, with canonical names for those that were matched."""
        canonical = {source.header: name for name, source in self.sources.items()}
        return [canonical.get(h, unused_name(h) if h in self.set_aside else h) for h in headers]

    def notes(self) -> list[str]:
        """Return notes on headers that are read under another name or in another unit."""
        other = [
            f"{canonical} is {source.header!r}" + (f" times {source.scale:g}" if source.scale != 1.0 else "")
            for canonical, source in self.sources.items()
            if source.header != canonical or source.scale != 1.0
        ]
        return [f"columns: {', '.join(other)}"] if other else []


WEIGHTS = ("weight", "weights", "sampleweight", "sampleweights", "rowweight", "runweight", "fitweight")
"""Names of columns of weights, without punctuation; none is read."""


def weight_notes(headers: Iterable[object]) -> list[str]:
    """Return a note on columns of weights, which a fit would otherwise seem to use."""
    return [
        f"not used: column {str(header)!r}: every row weighs the same but for outliers. Rows of less precise "
        "losses weigh less with standard errors (loss_se, and Objective(standard_errors=True)); leave out "
        "rows that should not count"
        for header in headers
        if _key(str(header)) in WEIGHTS
    ]


def unused_name(header: str) -> str:
    """Return the name of a column that is not read as the canonical column of its name."""
    return f"{header} (not used)"


def match_header(header: str, loss_unit: str | None = None) -> tuple[str, HeaderMatch] | None:
    """Match a header to a canonical column; losses only if they are in ``loss_unit``."""
    bare = _GROUP.sub("", header, count=1) if _GROUP.match(header) else header
    if header in SYMBOLS:
        return SYMBOLS[header], HeaderMatch(header, symbol=len(header) == 1)
    if loss_unit is not None and loss_unit_of(bare) == loss_unit:
        canonical = _BY_KEY.get(_key(without_loss_unit(bare)))
        return (canonical, HeaderMatch(header)) if canonical in ("loss", "teacher_loss", "loss_se") else None
    if canonical := _BY_KEY.get(_key(bare)):
        return canonical, HeaderMatch(header)
    for stem, scale in split_unit(bare):
        symbol = stem in SYMBOLS and len(stem) == 1
        canonical = SYMBOLS.get(stem) or _BY_KEY.get(_key(stem))
        if canonical and (factor := scale(canonical)) is not None:
            return canonical, HeaderMatch(header, factor, symbol=symbol)
    return None


def number_duplicates(headers: Sequence[object]) -> list[str]:
    """Return headers as stripped text, with duplicates numbered: ``loss#1``, ``loss#2``."""
    names = [str(header).strip().removeprefix("\ufeff").strip() for header in headers]
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(f"{name}#{counts[name]}" if names.count(name) > 1 else name)
    return found


def resolve_columns(
    headers: Sequence[str],
    mapping: Mapping[str, str | None],
    loss_unit: str | None = None,
    other: Collection[str] = (),
) -> ColumnMapping:
    """Match the headers of a table to canonical columns.

    Args:
        headers: Headers as :func:`number_duplicates` returns them.
        mapping: Header of a canonical column; it takes precedence. An empty name excludes the column.
        loss_unit: Unit of the losses.
        other: Symbols that mean something else if a spelled-out name is there, as L and D for layers and
            width.

    Raises:
        InputError: for an impossible mapping, and if several headers match one column.
    """
    found = ColumnMapping(_mapped_headers(headers, mapping))
    absent = {SYMBOLS.get(canonical, canonical) for canonical, mapped in mapping.items() if not mapped}
    taken = {source.header for source in found.sources.values()}
    candidates: dict[str, list[HeaderMatch]] = {}
    for header in headers:
        matched = match_header(header, loss_unit) if header not in taken else None
        if matched and matched[0] not in found.sources and matched[0] not in absent:
            candidates.setdefault(matched[0], []).append(matched[1])
    if "State" in headers:
        for canonical, names in WANDB_COLUMNS.items():
            candidates.setdefault(canonical, []).extend(
                HeaderMatch(name) for name in names if name in headers and name not in taken
            )
    _refuse_duplicates(headers, {*found.sources, *absent})
    for canonical, sources in candidates.items():
        if sources and canonical not in found.sources and canonical not in absent:
            found.sources[canonical] = _choose_header(canonical, sources, other)
    taken = {source.header for source in found.sources.values()}
    found.set_aside = {header for header in headers if header in SYNONYMS and header not in taken}
    return found


def _mapped_headers(headers: Sequence[str], mapping: Mapping[str, str | None]) -> dict[str, HeaderMatch]:
    found: dict[str, HeaderMatch] = {}
    names: dict[str, str] = {}
    for canonical, mapped in mapping.items():
        if canonical not in SYNONYMS and canonical not in SYMBOLS:
            known = ", ".join(sorted({*SYMBOLS, *SYNONYMS}))
            raise InputError(f"cannot map to {canonical!r}; accepted names: {known}")
        if not mapped:
            continue
        name, source = SYMBOLS.get(canonical, canonical), _mapped_header(canonical, mapped, headers)
        if source.header in names:
            raise InputError(f"column {source.header!r} cannot be both {names[source.header]} and {name}")
        if name in found:
            raise InputError(f"two columns are mapped to {name}, {source.header!r} is the second")
        names[source.header], found[name] = name, source
    return found


def _mapped_header(canonical: str, mapped: str, headers: Sequence[str]) -> HeaderMatch:
    """Return the header that a mapping names, with its unit or a factor as in ``size*1e6``."""
    header, _, factor = mapped, "", ""
    if mapped.strip() not in headers and "*" in mapped:
        header, _, factor = mapped.rpartition("*")
    header = header.strip()
    if header not in headers:
        raise InputError(f"no column {header!r} to map {canonical} to; {list_columns(headers, header)}")
    if factor:
        try:
            scale = float(factor)
        except ValueError:
            scale = 0.0
        if not 0.0 < scale < float("inf"):
            raise InputError(
                f"--map {canonical}={mapped}: a unit must be a positive number, as in "
                f"{canonical}={header}*1e9"
            )
        return HeaderMatch(header, scale, stated=True)
    matched = match_header(header)
    same = matched is not None and matched[0] == SYMBOLS.get(canonical, canonical)
    return matched[1] if matched and same else HeaderMatch(header)


def _refuse_duplicates(headers: Sequence[str], settled: set[str]) -> None:
    """Reject two columns of one name that both match a canonical column."""
    for header in headers:
        name, mark, number = header.rpartition("#")
        matched = match_header(name) if mark and number == "1" and f"{name}#2" in headers else None
        if matched and matched[0] not in settled:
            raise InputError(
                f"the table has two columns named {name!r}; choose one, for example the second with "
                f"{map_option(matched[0], name + '#2')}"
            )


def _choose_header(canonical: str, sources: Sequence[HeaderMatch], other: Collection[str]) -> HeaderMatch:
    """Choose the header of a canonical column among those that match it."""
    spelled = [source for source in sources if not (source.symbol and source.header in other)]
    spelled = spelled or list(sources)
    if canonical not in UNAMBIGUOUS:
        order = [canonical, *SYNONYMS[canonical]]
        rank = {_key(name): place for place, name in reversed(list(enumerate(order)))}
        return min(spelled, key=lambda source: rank.get(_key(source.header), len(order)))
    if len(spelled) > 1:
        names = " and ".join(repr(source.header) for source in spelled)
        raise InputError(
            f"columns {names} all match {canonical}; choose one, for example with "
            f"{map_option(canonical, spelled[0].header)}"
        )
    return spelled[0]


def list_columns(headers: Sequence[str], wanted: str) -> str:
    """List the columns of a table, and the one most similar to ``wanted``."""
    close = get_close_matches(wanted, headers, n=1)
    there = ", ".join(headers)
    return f"the columns are: {there}" + (f" (did you mean {close[0]!r}?)" if close else "")


def map_option(canonical: str, header: str, scale: float | None = None) -> str:
    """Return the shell option that maps a header, in a unit, to a canonical column."""
    return f"--map {shlex.quote(map_part(canonical, header, scale))}"


def map_part(canonical: str, header: str, scale: float | None = None) -> str:
    """Return one part of the list of ``--map``: ``D=tokens*1e9``."""
    symbol = next((symbol for symbol, name in SYMBOLS.items() if name == canonical), canonical)
    name = '"' + header.replace('"', '""') + '"' if re.search(r"[,=*\"']", header) else header
    unit = "" if scale is None else "*" + re.sub(r"e\+?0*", "e", f"{scale:g}")
    return f"{symbol}={name}{unit}"


def parse_mapping(
    text: str, option: str = "--map", example: str = "N=params,D=tokens,L=loss", *, absent: bool = False
) -> dict[str, str]:
    """Parse a list such as ``"N=params,D=tokens"`` to a mapping.

    A name with a comma, an equals sign or an asterisk is quoted: ``L="wd=0.1, val/loss"``.

    Args:
        text: The list.
        option: Name of the option in messages.
        example: Example of a list in messages.
        absent: Accept an empty name: ``method=`` excludes the column.

    Raises:
        InputError: for any other text.
    """
    parts = [part for part in re.findall(r'(?:"(?:[^"]|"")*"|[^,"])+|"', text) if part.strip()]
    pairs = [[side.strip() for side in part.partition("=")[::2]] for part in parts]
    whole = all("=" in part for part in parts)
    if not whole or not all(canonical and (mapped or absent) for canonical, mapped in pairs):
        raise InputError(f"{option} must be a list like {example}, not {text!r}")
    named = [canonical for canonical, _ in pairs]
    for canonical in named:
        if named.count(canonical) > 1:
            raise InputError(f"{option} gives {canonical} {named.count(canonical)} times: {text!r}")
    return {canonical: _unquoted(mapped, option, text) for canonical, mapped in pairs}


def _unquoted(name: str, option: str, text: str) -> str:
    if not name.startswith('"'):
        return name
    whole = re.fullmatch(r'"((?:[^"]|"")*)"\s*(\*.*)?', name)
    if whole is None:
        raise InputError(f"{option}: a quoted name must end with a quotation mark: {text!r}")
    return whole[1].replace('""', '"') + (whole[2] or "")
