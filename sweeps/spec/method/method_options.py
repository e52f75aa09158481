"""The parts of a method that not every method has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sweeps.spec.fields import Count, Number, Quantity, SpecModel


class Taid(SpecModel):
    """A teacher that begins near the student and moves away from it.

    See :mod:`sweeps.distill.taid`.
    """

    start: Number = Field(0.4, ge=0, le=1)
    """t at the beginning: 0 is the student, 1 the teacher."""
    end: Number = Field(1.0, gt=0, le=1)
    """t at the end."""
    pace: Number = Field(8.0, ge=0)
    """Speed beyond linear at which t may rise, over the whole run; 0 leaves it linear."""
    momentum: Number = Field(0.99, ge=0, lt=1)
    """Memory of how the loss fell, per optimizer step."""

    @model_validator(mode="after")
    def _rises(self) -> Taid:
        if self.start > self.end:
            raise ValueError(f"start ({self.start:g}) must not be above end ({self.end:g})")
        return self


class Delta(SpecModel):
    """The target is the student's base, moved as tuning moved the teacher.

    See :mod:`sweeps.distill.delta`.
    """

    strength: Number = Field(1.0, ge=0)
    """Strength of the shift: 0 is the student's base, 1 the teacher's whole tuning."""
    tail: Number = Field(1e-3, ge=0, lt=1)
    """Shift no token less likely than this share of the likeliest, for tuned teacher and student's base."""


class Neighbours(SpecModel):
    """The teacher's distribution is a vote of like places in the text.

    See :mod:`sweeps.distill.knn`.
    """

    count: Count = Field(16, ge=1)
    """k, of neighbours that vote."""
    keys: Quantity = 2.0**15
    """Tokens of the training text that can be neighbours, whole blocks of it; every one is searched."""
    temperature: Number = Field(1.0, gt=0)
    """Temperature of votes, in medians of the squared distance of the farthest neighbour."""
    itself: bool = False
    """Let a token of the text be its own neighbour, as the reference code does: the label then wins."""

    def search_flops(self, width: int) -> float:
        """FLOPs of looking one token up, with features of ``width``."""
        return 2 * self.keys * width


class Replay(SpecModel):
    """Text of the student is kept and read again; its share grows as the loss rises (DistiLLM)."""

    capacity: Count = Field(1000, ge=1)
    """Sequences kept, the newest."""
    start: Number = Field(0.0, ge=0, le=1)
    """Share of batches that the student wrote, at first; the others are the data's."""
    rise: Number = Field(0.1, gt=0, le=1)
    """Increment of that share each time the loss is found to have risen."""
    tolerance: Number = Field(0.1, ge=0)
    """Rise of the loss on the data from its baseline that counts, nats/token. The baseline is the loss at the
    first step, and after each rise that counted the loss found then."""
    looks: Count = Field(20, ge=1)
    """Looks at that loss, evenly spaced from the first step on; a shorter run looks at every step."""


class Source(SpecModel):
    """Text that a student is trained on. Prompts are the data's, and only what comes after them counts."""

    by: Literal["data", "teacher", "student", "both"] = "data"
    """The data itself, all of which counts; or what the teacher wrote, once, before; or what the student
    writes at every step; or for one half of each batch the one, for the other the other."""
    prompt_tokens: Count | None = Field(None, ge=1)
    """Tokens of each block of the data that are kept as a prompt; a quarter of the context if not given."""
    temperature: Number = Field(1.0, gt=0)
    """Temperature at which text is written."""
    fraction: Number = Field(1.0, gt=0, le=1)
    """Share of batches that the student writes; the others are the data's."""
    teacher_share: Number = Field(0.0, ge=0, lt=1)
    """Share of the teacher in the mixture that the student's text is drawn from, token by token."""
    replay: Replay | None = None
    """Let the student write more as its loss rises, and keep what it wrote."""

    def prompt(self, context: int) -> int:
        """Tokens of a prompt."""
        return self.prompt_tokens or max(1, context // 4)


class Credit(SpecModel):
    """Credit of a token for all that came after it, as MiniLLM has it.

    See :mod:`sweeps.distill.generation.policy_gradient`.
    """

    discount: Number = Field(1.0, ge=0, le=1)
    """gamma, of what comes one token later."""
    normalise: bool = True
    """Divide by how much comes after: the mean of rewards, not their sum."""
    clip: Number = Field(0.2, gt=0)
    """Distance from one up to which the ratio of new to old probability counts."""
    updates: Count = Field(4, ge=1)
    """Optimizer steps on what was written once."""
    rewards: Literal["sampled", "expected"] = "sampled"
    """log p/q of the token drawn; or what that is on average, minus the reverse KL, which varies less."""
    include_current: bool = False
    """Count a token's own reward too, as the reference code does: the divergence says it already."""


class Init(SpecModel):
    """First part of a run, before its method, with a part of its tokens and FLOPs."""

    share: Number = Field(0.25, gt=0, lt=1)
    """Share of the student's tokens."""
    by: Literal["data", "teacher", "base"] = "data"
    """Trained on the data; or distilled on it, with forward KL, from the same teacher; or trained on the text
    that the teacher's base was trained on."""
