"""Description of a run for its command: the JSON file that ``DISTLAW_JOB`` names, with its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from scaling.costs.flops import ModelShape
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus

SCHEMA_FILE = Path(__file__).with_name("job.schema.json")
VERSION = 1
"""Version of the description; fields are only added within one."""


class JobModel(BaseModel):
    """Part of a description, with the meaning of its fields in the schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class JobShape(JobModel):
    """Shape on the sweep's ladder that has the size asked for; another architecture of that size will do."""

    layers: int
    width: int
    ffn: int
    """Width of the gated feed-forward network."""
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    """Entries of the tokenizer."""
    context: int
    """Sequence length, tokens."""
    tied: bool
    """True if the embedding is the output projection too."""


class JobRules(JobModel):
    """Training rules, in tokens and in optimizer steps."""

    batch_tokens: float
    """Tokens per optimizer step, over all devices."""
    batch_size: float
    """Sequences per optimizer step, over all devices."""
    steps: int
    """Optimizer steps."""
    warmup_tokens: float
    warmup_steps: int
    learning_rate: float
    """Peak learning rate at the base width of mu-P (simple)."""
    schedule: str
    decay_fraction: float
    final_lr_fraction: float
    weight_decay: float
    max_grad_norm: float
    precision: str


class JobCorpus(JobModel):
    """Text of the sweep, and its tokens on this machine."""

    source: str
    """Named text, path, glob, or hf:OWNER/NAME."""
    text_field: str
    fingerprint: str
    """Hash of text, split and tokenizer."""
    half: Literal["first", "second"] | None
    """Half of the training tokens that the run may read; null for all."""
    tokenizer: str | None
    """Directory that AutoTokenizer.from_pretrained reads."""
    train_file: str | None
    """Training tokens, an array of ``dtype`` without header; documents end with the end-of-text token."""
    heldout_file: str | None
    """Held-out tokens, likewise, which must not be trained on."""
    dtype: str
    train_tokens: int | None


class JobTeacher(JobModel):
    """Teacher of a student."""

    id: str
    params: float
    """Non-embedding parameters."""
    tokens: float | None
    """Tokens that it was trained on, if known."""
    loss: float | None
    """Held-out loss, nats/token; null before it is done."""
    model: str | None
    """Directory in Hugging Face layout, or OWNER/NAME on a hub; null if it left only a loss."""
    revision: str | None
    """Commit on the hub."""


class ExternalJob(JobModel):
    """Run that a command is to train."""

    version: Literal[1]
    id: str
    """Identity of the step in the store."""
    role: Literal["supervised", "teachers", "students"]
    """Field of the spec that asks for the run; of teachers, students may need the model."""
    label: str
    params: int
    """Non-embedding parameters asked for; the run may have others within 10 %, and must say which."""
    tokens: int
    """Training tokens asked for, likewise within 10 %."""
    flops: float
    """FLOPs of the run, teacher's inference included, as the sweep counts them."""
    training_flops: float
    """FLOPs of training alone."""
    seed: int
    data_seed: int
    shape: JobShape
    rules: JobRules
    corpus: JobCorpus
    teacher: JobTeacher | None
    method: dict[str, Any] | None
    """Distillation method: its name, and the fields of the spec's methods."""
    trainer_version: str


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of the description, as shipped in ``job.schema.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ExternalJob.model_json_schema()}


def describe_job(
    step: Step, corpus: TokenizedCorpus | None, teacher: Mapping[str, Any], model: str | None
) -> ExternalJob:
    """Describe the run of ``step`` to its command.

    Args:
        step: The step, which has a trainer.
        corpus: Tokens on this machine; None where they are not to be made.
        teacher: Result of the teacher's step; empty before it is done.
        model: Directory of the teacher's model on this machine; None if it has none.
    """
    assert step.trainer is not None
    training, shape = step.training, step.shape
    return ExternalJob(
        version=VERSION,
        id=step.id,
        role=step.role or ("students" if step.teacher else "supervised"),
        label=step.label,
        params=shape.params,
        tokens=step.tokens,
        flops=step.flops,
        training_flops=step.flops_by_part()["training"],
        seed=step.seed,
        data_seed=step.data_seed,
        shape=_shape(shape),
        rules=JobRules(
            steps=step.steps,
            batch_size=training.batch_tokens / shape.context,
            warmup_tokens=training.warmup_steps * training.batch_tokens,
            warmup_steps=training.warmup_steps,
            **{
                name: getattr(training, name)
                for name in JobRules.model_fields
                if name in type(training).model_fields and name != "warmup_tokens"
            },
        ),
        corpus=_corpus(step, corpus),
        teacher=_teacher(step.teacher, teacher, model) if step.teacher else None,
        method={"name": step.method.name} | step.method.model_dump(mode="json") if step.method else None,
        trainer_version=step.trainer.version,
    )


def _shape(shape: ModelShape) -> JobShape:
    return JobShape(**{name: value for name, value in asdict(shape).items() if name in JobShape.model_fields})


def _corpus(step: Step, corpus: TokenizedCorpus | None) -> JobCorpus:
    return JobCorpus(
        source=step.corpus.source,
        text_field=step.corpus.text_field,
        fingerprint=step.corpus_fingerprint,
        half=step.half,
        tokenizer=str(corpus.tokenizer_files) if corpus else step.corpus.tokenizer,
        train_file=str(corpus.path / "train.bin") if corpus else None,
        heldout_file=str(corpus.path / "heldout.bin") if corpus else None,
        dtype="uint16" if step.shape.vocab <= 2**16 else "uint32",
        train_tokens=corpus.train_tokens if corpus else None,
    )


def _teacher(teacher: Step, result: Mapping[str, Any], model: str | None) -> JobTeacher:
    foreign = teacher.foreign
    return JobTeacher(
        id=teacher.id,
        params=result.get("params", teacher.shape.params),
        tokens=foreign.tokens if foreign else result.get("tokens", teacher.tokens),
        loss=result.get("loss"),
        model=foreign.place.model if foreign else model,
        revision=foreign.place.commit if foreign else None,
    )
