"""Column names of a runs table: ours, what others call them, and which header is which.

:data:`SYNONYMS` is the one list of names that are understood without ``--map``. Case, spaces and punctuation
do not count (``Val/Loss`` is ``val_loss``), a unit in the header does (``tokens (B)``, ``params_millions``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from fits.table.units_in_headers import header_parts, loss_unit_of, without_loss_unit
from scaling.errors import InputError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "params": (
        *("n_params", "num_params", "params_count", "param_count", "parameters", "n_parameters"),
        *("num_parameters", "parameter_count", "model_size", "model_params", "model_parameters"),
        *("non_embedding_params", "params_non_embedding", "n_params_non_embedding", "params_nonembed"),
        *("non_embedding_parameters", "student_params", "student_parameters", "student_params_nonembed"),
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
"""Each column of ours, and its other names in the order in which the first one found is taken."""
SYMBOLS = {
    "N": "params", "D": "tokens", "L": "loss", "C": "compute", "N_T": "teacher_params",
    "D_T": "teacher_tokens", "L_T": "teacher_loss", "N_S": "params", "D_S": "tokens", "L_S": "loss",
    "NT": "teacher_params", "DT": "teacher_tokens", "LT": "teacher_loss", "NS": "params", "DS": "tokens",
    "LS": "loss",
}  # fmt: skip
"""The papers' symbols, in this case only."""
MEASURED = (
    "params",
    "tokens",
    "loss",
    "loss_se",
    "compute",
    "teacher_params",
    "teacher_tokens",
    "teacher_loss",
)
"""Columns that two headers may not both be: which one is meant has to be said."""
OF_WANDB = {"run": ("ID", "Name"), "status": ("State",)}
"""Columns of an exported W&B table, which has a column ``State``."""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): ours for ours, names in SYNONYMS.items() for name in (ours, *names)}
_GROUP = re.compile(r"(?i)(config|summary|params|metrics|hparams)[./]")
"""Prefixes that W&B, MLflow and Lightning put before a name."""


@dataclass(frozen=True, slots=True)
class Source:
    """A header that fills a column of ours."""

    header: str
    scale: float = 1.0
    """What numbers without a unit of their own are multiplied by."""
    stated: bool = False
    """Whether ``--map`` says the unit."""
    symbol: bool = False
    """Whether the header is one letter, which may stand for something else."""


@dataclass(slots=True)
class Columns:
    """How the headers of a table were understood."""

    sources: dict[str, Source] = field(default_factory=dict)
    """By column of ours."""
    set_aside: set[str] = field(default_factory=set)
    """Headers called as a column of ours, but not taken for it."""

    def new_names(self, headers: Sequence[str]) -> list[str]:
        """The headers, with those that are understood under our names."""
        ours = {source.header: name for name, source in self.sources.items()}
        return [ours.get(h, unused(h) if h in self.set_aside else h) for h in headers]

    def notes(self) -> list[str]:
        """Which headers were read as something else than they are called."""
        other = [
            f"{ours} is {source.header!r}" + (f" times {source.scale:g}" if source.scale != 1.0 else "")
            for ours, source in self.sources.items()
            if source.header != ours or source.scale != 1.0
        ]
        return [f"columns: {', '.join(other)}"] if other else []


def unused(header: str) -> str:
    """What a column is called that is ours by name only."""
    return f"{header} (not used)"


def match(header: str, loss_unit: str | None = None) -> tuple[str, Source] | None:
    """The column of ours that a header is, if it is one; losses only where they are in ``loss_unit``."""
    bare = _GROUP.sub("", header, count=1) if _GROUP.match(header) else header
    if header in SYMBOLS:
        return SYMBOLS[header], Source(header, symbol=len(header) == 1)
    if loss_unit is not None and loss_unit_of(bare) == loss_unit:
        ours = _BY_KEY.get(_key(without_loss_unit(bare)))
        return (ours, Source(header)) if ours in ("loss", "teacher_loss", "loss_se") else None
    if ours := _BY_KEY.get(_key(bare)):
        return ours, Source(header)
    for stem, scale in header_parts(bare):
        symbol = stem in SYMBOLS and len(stem) == 1
        ours = SYMBOLS.get(stem) or _BY_KEY.get(_key(stem))
        if ours and (factor := scale(ours)) is not None:
            return ours, Source(header, factor, symbol=symbol)
    return None


def distinct(headers: Sequence[object]) -> list[str]:
    """Headers as stripped text; those that occur twice are numbered: ``loss#1``, ``loss#2``."""
    names = [str(header).strip().removeprefix("\ufeff").strip() for header in headers]
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(f"{name}#{counts[name]}" if names.count(name) > 1 else name)
    return found


def columns_of(
    headers: Sequence[str],
    mapping: Mapping[str, str | None],
    loss_unit: str | None = None,
    other: Collection[str] = (),
) -> Columns:
    """Which of the headers (made by :func:`distinct`) is which column of ours.

    What ``mapping`` names wins; an empty name says that a column of ours is not in the table. Letters in
    ``other`` mean something else where a spelled-out name is there, as L and D for layers and width do.

    Raises InputError for a mapping that cannot be, and where two headers may be one column.
    """
    found = Columns(_mapped(headers, mapping))
    absent = {SYMBOLS.get(ours, ours) for ours, theirs in mapping.items() if not theirs}
    taken = {source.header for source in found.sources.values()}
    candidates: dict[str, list[Source]] = {}
    for header in headers:
        matched = match(header, loss_unit) if header not in taken else None
        if matched and matched[0] not in found.sources and matched[0] not in absent:
            candidates.setdefault(matched[0], []).append(matched[1])
    if "State" in headers:
        for ours, names in OF_WANDB.items():
            candidates.setdefault(ours, []).extend(
                Source(name) for name in names if name in headers and name not in taken
            )
    _refuse_twins(headers, {*found.sources, *absent})
    for ours, sources in candidates.items():
        if ours not in found.sources and ours not in absent:
            found.sources[ours] = _chosen(ours, sources, other)
    taken = {source.header for source in found.sources.values()}
    found.set_aside = {header for header in headers if header in SYNONYMS and header not in taken}
    return found


def _mapped(headers: Sequence[str], mapping: Mapping[str, str | None]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    names: dict[str, str] = {}
    for ours, theirs in mapping.items():
        if ours not in SYNONYMS and ours not in SYMBOLS:
            known = ", ".join(sorted({*SYMBOLS, *SYNONYMS}))
            raise InputError(f"cannot map to {ours!r}; the names are {known}")
        if not theirs:
            continue
        name, source = SYMBOLS.get(ours, ours), _source(ours, theirs, headers)
        if source.header in names:
            raise InputError(f"column {source.header!r} cannot be both {names[source.header]} and {name}")
        if name in found:
            raise InputError(f"two columns are mapped to {name}, {source.header!r} is the second")
        names[source.header], found[name] = name, source
    return found


def _source(ours: str, theirs: str, headers: Sequence[str]) -> Source:
    """The header that a mapping names, with its unit: its own, or a factor as in ``size*1e6``."""
    header, _, factor = theirs, "", ""
    if theirs.strip() not in headers and "*" in theirs:
        header, _, factor = theirs.rpartition("*")
    header = header.strip()
    if header not in headers:
        raise InputError(f"no column {header!r} to map {ours} to; {listed(headers, header)}")
    if factor:
        try:
            scale = float(factor)
        except ValueError:
            scale = 0.0
        if not 0.0 < scale < float("inf"):
            raise InputError(f"--map {ours}={theirs}: a unit is a positive number, as in {ours}={header}*1e9")
        return Source(header, scale, stated=True)
    matched = match(header)
    same = matched is not None and matched[0] == SYMBOLS.get(ours, ours)
    return matched[1] if matched and same else Source(header)


def _refuse_twins(headers: Sequence[str], settled: set[str]) -> None:
    """Refuse two columns of one name that may both be one of ours."""
    for header in headers:
        name, mark, number = header.rpartition("#")
        matched = match(name) if mark and number == "1" and f"{name}#2" in headers else None
        if matched and matched[0] not in settled:
            raise InputError(
                f"the table has two columns called {name!r}; say which one counts, the second for example "
                f"with {map_option(matched[0], name + '#2')}"
            )


def _chosen(ours: str, sources: Sequence[Source], other: Collection[str]) -> Source:
    """The header that fills a column of ours, of all that may."""
    spelled = [source for source in sources if not (source.symbol and source.header in other)]
    spelled = spelled or list(sources)
    if ours not in MEASURED:
        order = [ours, *SYNONYMS[ours]]
        rank = {_key(name): place for place, name in reversed(list(enumerate(order)))}
        return min(spelled, key=lambda source: rank.get(_key(source.header), len(order)))
    if len(spelled) > 1:
        names = " and ".join(repr(source.header) for source in spelled)
        raise InputError(
            f"columns {names} may each be {ours}; say which one is with {map_option(ours, spelled[0].header)}"
        )
    return spelled[0]


def listed(headers: Sequence[str], wanted: str) -> str:
    """The columns that are there, and the one that ``wanted`` may have meant."""
    close = get_close_matches(wanted, headers, n=1)
    there = ", ".join(headers)
    return f"the columns are: {there}" + (f" (did you mean {close[0]!r}?)" if close else "")


def map_option(ours: str, header: str, scale: float | None = None) -> str:
    """The option that maps a header to a column of ours, in a unit, as it is typed in a shell."""
    return f"--map {shlex.quote(map_part(ours, header, scale))}"


def map_part(ours: str, header: str, scale: float | None = None) -> str:
    """One part of the list that ``--map`` takes: ``D=tokens*1e9``."""
    symbol = next((symbol for symbol, name in SYMBOLS.items() if name == ours), ours)
    name = '"' + header.replace('"', '""') + '"' if re.search(r"[,=*\"']", header) else header
    unit = "" if scale is None else "*" + re.sub(r"e\+?0*", "e", f"{scale:g}")
    return f"{symbol}={name}{unit}"


def parse_mapping(
    text: str, option: str = "--map", example: str = "N=params,D=tokens,L=loss", *, absent: bool = False
) -> dict[str, str]:
    """``"N=params,D=tokens"`` as a mapping; raises InputError, naming ``option``, where it is not one.

    A name with a comma, an equals sign or an asterisk is quoted: ``L="wd=0.1, val/loss"``. With ``absent``
    a name may be empty: ``method=`` says that the table has no such column.
    """
    parts = [part for part in re.findall(r'(?:"(?:[^"]|"")*"|[^,"])+|"', text) if part.strip()]
    pairs = [[side.strip() for side in part.partition("=")[::2]] for part in parts]
    whole = all("=" in part for part in parts)
    if not whole or not all(ours and (theirs or absent) for ours, theirs in pairs):
        raise InputError(f"{option} is a list like {example}, not {text!r}")
    named = [ours for ours, _ in pairs]
    for ours in named:
        if named.count(ours) > 1:
            raise InputError(f"{option} gives {ours} {named.count(ours)} times: {text!r}")
    return {ours: _unquoted(theirs, option, text) for ours, theirs in pairs}


def _unquoted(name: str, option: str, text: str) -> str:
    if not name.startswith('"'):
        return name
    whole = re.fullmatch(r'"((?:[^"]|"")*)"\s*(\*.*)?', name)
    if whole is None:
        raise InputError(f"{option}: a quoted name ends with its quote: {text!r}")
    return whole[1].replace('""', '"') + (whole[2] or "")
