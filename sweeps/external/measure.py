"""Measurement of what a command has left: our own held-out loss of a model, or the loss that it reports."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.model_dir import MODEL_FILES, ModelLocation, weight_files
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.external.result import REPORTED, ReportedResult, check_close
from sweeps.external.run import Left
from sweeps.pretrained.count import read_card
from sweeps.pretrained.load import load_pretrained
from sweeps.pretrained.vocabulary import require_same_vocabulary
from sweeps.store.store import Store
from sweeps.train.evaluation import evaluate

COPIED = (*MODEL_FILES, "*.txt", "*.model", "*.jinja")
"""Files of a model's directory that are kept."""
LEFT_OUT = ("trainer_state.json", "result.json")


def measured(store: Store, step: Step, corpus: TokenizedCorpus, left: Left, name: str) -> dict[str, Any]:
    """Return the fields of a result that come from what a command has left; keep its model in the store.

    Args:
        store: The store.
        step: The step.
        corpus: Its text.
        left: What the command has left.
        name: Name of the model's directory in the store.

    Raises:
        InputError: if the model cannot be read, is of another size or vocabulary, or its loss is no number.
    """
    reported, shape = left.reported, None
    found: dict[str, Any] = {"loss_se": reported.loss_se, "bits_per_byte": None}
    if left.model is None:
        found |= {"loss": reported.loss, "loss_on": reported.loss_on or REPORTED}
    else:
        shape = _counted(step, left.model)
        found |= _of_model(step, corpus, left.model) | {"reported_loss": reported.loss}
        found |= _kept(store, step, corpus, left.model, name)
    return (
        found
        | sized_fields(step, reported, shape)
        | {
            "yardsticks": dict(reported.metrics),
            "seconds": {"train": left.seconds if reported.seconds is None else reported.seconds},
            "trainer": {"command": step.trainer and step.trainer.command, "reported": reported.model_dump()},
        }
    )


def sized_fields(step: Step, reported: ReportedResult, shape: ModelShape | None) -> dict[str, Any]:
    """Return true size, tokens and FLOPs of a run; ``shape`` is that of its model, if it left one."""
    params = shape.params if shape else reported.params or step.shape.params
    tokens = reported.tokens or step.tokens
    parts = step.flops_by_part()
    if reported.flops is not None:
        return {
            "params": params,
            "tokens": tokens,
            "flops": {"declared": reported.flops, "total": reported.flops},
        }
    longer = tokens / step.tokens
    larger = shape.training_flops(1) / step.shape.training_flops(1) if shape else params / step.shape.params
    parts = {name: flops * longer * (larger if name == "training" else 1.0) for name, flops in parts.items()}
    return {"params": params, "tokens": tokens, "flops": parts | {"total": sum(parts.values())}}


def _counted(step: Step, folder: Path) -> ModelShape:
    """Return the shape of a model at the context and vocabulary of the sweep.

    Raises:
        InputError: if it is not of the size asked for, or supports only shorter contexts.
    """
    weight_files(folder, "model")
    shape = read_card(folder, "model").shape
    if shape.context < step.shape.context:
        raise InputError(
            f"model: {folder} supports contexts of at most {shape.context:,} tokens, and corpus.context is "
            f"{step.shape.context:,}"
        )
    check_close(shape.params, step.shape.params, "non-embedding parameters", f"model {folder}")
    return replace(shape, vocab=step.shape.vocab, context=step.shape.context)


def _of_model(step: Step, corpus: TokenizedCorpus, folder: Path) -> dict[str, Any]:
    """Return the held-out loss of a model, measured as that of every other run."""
    from sweeps.model.device import device

    if (folder / "tokenizer.json").is_file():
        require_same_vocabulary(
            ExternalTokenizer.read(folder, "model").vocabulary,
            ExternalTokenizer.read(corpus.tokenizer_files).vocabulary,
            where="model",
            model=str(folder),
            given=step.corpus.tokenizer,
        )
    found = evaluate(load_pretrained(folder, step.shape.vocab, "model").to(device()), step, corpus)
    if not math.isfinite(found["loss"]):
        raise InputError(f"model {folder}: its held-out loss is {found['loss']}")
    return found


def _kept(store: Store, step: Step, corpus: TokenizedCorpus, folder: Path, name: str) -> dict[str, Any]:
    """Copy a model to the store, with the corpus's tokenizer if it has none."""
    with model_files(folder, corpus.tokenizer_files) as files:
        store.put_model(step.id, files, name)
        return {"model": name, "model_fingerprint": ModelLocation(model=str(files)).fingerprint}


@contextmanager
def model_files(folder: Path, tokenizer: Path) -> Iterator[Path]:
    """Yield a directory of links to the files of a model, without optimizer states and the like."""
    with tempfile.TemporaryDirectory(prefix="distlaw-") as scratch:
        files = {path.name: path for pattern in COPIED for path in folder.glob(pattern) if path.is_file()}
        if "tokenizer.json" not in files:
            files = {path.name: path for path in tokenizer.iterdir()} | files
        for name, path in files.items():
            if name not in LEFT_OUT:
                Path(scratch, name).symlink_to(path.absolute())
        yield Path(scratch)
