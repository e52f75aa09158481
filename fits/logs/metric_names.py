"""Names that tools give to held-out losses, tokens, sizes and learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fits.logs.run_log import words_of
from fits.table.columns.column_names import SYNONYMS, match_header
from fits.table.columns.units_in_headers import loss_unit_of

HELD_OUT = {"eval", "val", "valid", "validation", "heldout", "test", "dev"}
"""Words of a name that say that a loss is held out."""
LOSS_WORDS = {"loss", "ce", "nll", "ppl", "perplexity", "bpb", "bits", "bpt", "xent", "bpc"}
OTHER_WORDS = {
    *("runtime", "second", "seconds", "accuracy", "acc", "z", "aux", "balance", "balancing", "kl", "reward"),
    *("throughput", "time", "std", "stderr", "min", "max", "scale", "count", "samples", "vs", "best"),
    *("teacher", "soft", "hard", "divergence", "router"),
}
"""Words of a name that say that a number is not the loss."""
REDUCED = ("_epoch",)
"""Suffixes of a name whose bare form is the same loss, less averaged (Lightning)."""
TOKENS = (
    *("num_input_tokens_seen", "num_tokens", "n_tokens_seen", "throughput/total tokens", "consumed tokens"),
    *("consumed_tokens", "total_tokens_seen", "train/num_input_tokens_seen", "train/num_tokens"),
    *("train/tokens", "train/total_tokens", "total_training_tokens", "throughput.total tokens"),
)
"""Names of the tokens trained on, besides the synonyms of tables; the first that is there is used."""
LEARNING_RATES = (
    "learning_rate",
    "lr",
    "train/learning_rate",
    "train/lr",
    "learning rate",
    "learning-rate",
    "lrm",
)
"""Names of the learning rate, and others that contain it: ``optim/LR (group 0)``."""
SIZES = {
    "context": (
        "context",
        *SYNONYMS["context"],
        "max_seq_len",
        "seq_length",
        "sequence_len",
        "sequence length",
        "training.seq_len",
    ),
    "vocab": ("vocab", *SYNONYMS["vocab"]),
    "d_model": ("d_model", "hidden_size", "n_embd", "model_dim"),
    "n_layers": ("n_layers", "n_layer", "num_layers", "num_hidden_layers"),
    "seed": ("seed", "random_seed"),
    "tied": ("tied", "tie_word_embeddings", "tied_embeddings"),
}
"""Names of settings; also the last part of a dotted name."""


def is_held_out_loss(name: str) -> bool:
    """Return True if a name says that a number is a held-out loss, in any unit."""
    words = set(words_of(name.replace("held_out", "heldout").replace("held-out", "heldout")))
    return bool(words & HELD_OUT) and _is_loss(words)


def is_training_loss(name: str) -> bool:
    """Return True if a name may be that of a training loss."""
    words = set(words_of(name))
    return _is_loss(words) and not words & HELD_OUT


def _is_loss(words: set[str]) -> bool:
    return bool(words & LOSS_WORDS or {"cross", "entropy"} <= words) and not words & OTHER_WORDS


def held_out_losses(names: Iterable[str]) -> list[str]:
    """Return the names of held-out losses, nats/token before other units.

    Losses on a test set are returned only if none is of a validation set, and without less averaged copies.
    """
    found = [name for name in names if is_held_out_loss(name)]
    there = set(found)
    copies = {
        f"{name.removesuffix(suffix)}{less}"
        for suffix in REDUCED
        for name in there
        if name.endswith(suffix)
        for less in ("", "_step")
    }
    found = [name for name in found if name not in copies]
    validation = [name for name in found if "test" not in words_of(name)]
    found = validation or found
    return sorted(found, key=lambda name: loss_unit_of(name) is not None)


def token_counts(names: Sequence[str]) -> list[str]:
    """Return the names of tokens trained on, the most explicit first."""
    known = [name for name in TOKENS if name in names]
    matched = [
        name
        for name in names
        if (found := match_header(name)) and found[0] == "tokens" and not found[1].symbol
    ]
    return list(dict.fromkeys([*known, *matched]))


def learning_rates(names: Sequence[str]) -> list[str]:
    """Return the names of learning rates, the plain ones first."""
    plain = [name for name in LEARNING_RATES if name in names]
    others = [
        name for name in names if {"lr"} <= set(words_of(name)) or {"learning", "rate"} <= set(words_of(name))
    ]
    return list(dict.fromkeys([*plain, *others]))
