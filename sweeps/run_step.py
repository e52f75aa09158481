"""Run one step: the work that executors launch. What happened is in the store when it returns."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.checkpoints import Checkpoints
from sweeps.corpora import TokenisedCorpus, source_of, tokenise
from sweeps.provenance import versions
from sweeps.steps import Step
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.model import Decoder


def run_step(store: Store, step: Step) -> dict[str, Any]:
    """Train and evaluate the model of ``step`` unless the store has its result; return the result.

    Raises:
        InputError: if the corpus is no longer the one the step was planned on.
        Diverged: if training does.
        OSError: if the store cannot be written; no result is committed then.
    """
    if found := store.result(step.id):
        return found
    store.write(step.as_json(), step.id, "step.json")
    result = _train_trunk(store, step) if step.trunk else _train_and_save(store, step)
    if not store.commit(step.id, result):
        found = store.result(step.id)
        assert found is not None
        return found
    store.remove(step.id, "failure.json")
    if not step.trunk:
        Checkpoints(store, step.id).clear()
    return result


def corpus_of(step: Step) -> TokenisedCorpus:
    """The tokenised corpus of a step, verified to be the one it was planned on."""
    spec = step.corpus
    source = source_of(spec.source, spec.text_field)
    corpus = tokenise(source, vocab=spec.vocab, heldout=spec.heldout, seed=spec.seed)
    if corpus.fingerprint != step.corpus_fingerprint:
        raise InputError(
            f"corpus.source: {spec.source} has changed since this sweep was planned; start it again"
        )
    context = spec.context
    if min(corpus.train_tokens, corpus.heldout_tokens) <= 2 * context:
        raise InputError(
            f"corpus.source: {spec.source} gives {corpus.train_tokens:,} training tokens and "
            f"{corpus.heldout_tokens:,} held-out ones, too few for blocks of {context}; add text, or raise "
            "corpus.heldout"
        )
    return corpus


def _train_trunk(store: Store, step: Step) -> dict[str, Any]:
    """Train a trunk; its last checkpoint, which stays, is what branches begin from."""
    started = time.monotonic()
    _train(store, step, corpus_of(step))
    return _provenance(step) | {"seconds": {"train": time.monotonic() - started}}


def _train(store: Store, step: Step, corpus: TokenisedCorpus) -> Decoder:
    from sweeps.model_files import load_model
    from sweeps.training import Teacher, device, train

    started = time.monotonic()

    def report(done: int, loss: float) -> None:
        seconds = time.monotonic() - started
        progress = {"steps_done": done, "steps": step.ends, "loss": loss, "seconds": seconds}
        with suppress(OSError):  # only for the eye
            store.write(progress, step.id, "progress.json")

    with ExitStack() as stack:
        teacher = None
        if step.teacher and step.method:
            folder = stack.enter_context(store.model(step.teacher.id))
            trained = store.result(step.teacher.id) or {}
            model = load_model(folder, step.teacher.shape, trained.get("weights_sha256", "")).to(device())
            teacher = Teacher(model=model, method=step.method)
        return train(
            step.shape,
            corpus.train_tokens_of(step.half),
            steps=step.steps,
            training=step.training,
            seed=step.seed,
            data_seed=step.data_seed,
            teacher=teacher,
            report=report,
            checkpoints=Checkpoints(store, step.id),
            start=Checkpoints(store, step.start.id) if step.start else None,
            stop=step.ends if step.trunk else None,
        )


def _train_and_save(store: Store, step: Step) -> dict[str, Any]:
    """Train a model, measure it, and put it into the store."""
    from sweeps.model_files import save_model
    from sweeps.training import heldout_loss

    corpus = corpus_of(step)
    started = time.monotonic()
    model = _train(store, step, corpus)
    trained = time.monotonic()
    heldout = heldout_loss(model, corpus.heldout, parts=[part.heldout_tokens for part in corpus.parts])
    evaluated = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distlaw-") as scratch:
        weights_sha256 = save_model(model, corpus.tokenizer_files, Path(scratch))
        store.put_model(step.id, Path(scratch))
    return _provenance(step) | {
        "epochs": step.tokens / len(corpus.train_tokens_of(step.half)),
        "loss": heldout.loss,
        "loss_se": heldout.standard_error,
        "heldout_blocks": heldout.blocks,
        "weights_sha256": weights_sha256,
        "bits_per_byte": heldout.loss / math.log(2) / corpus.bytes_per_token,
        "seconds": {"train": trained - started, "evaluate": evaluated - trained},
        "corpus": {
            "source": corpus.source,
            "train_tokens": corpus.train_tokens,
            "heldout_tokens": corpus.heldout_tokens,
            "parts": [
                {**asdict(part), "loss": loss if math.isfinite(loss) else None}
                for part, loss in zip(corpus.parts, heldout.by_part, strict=True)
            ],
        },
    }


def _provenance(step: Step) -> dict[str, Any]:
    """What every result says of its step, and of where and with what it ran."""
    from sweeps.training import device

    return {
        "id": step.id,
        "step": step.as_json(),
        "params": step.shape.params,
        "tokens": step.tokens,
        "flops": {"student": step.student_flops, "teacher": step.teacher_flops, "total": step.flops},
        "device": f"{device().type}: {platform.processor() or platform.machine()}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
