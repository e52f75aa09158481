"""Attacks on an unlearned model: relearning from few documents, and trained soft prompts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

IGNORED = -100
"""Label of a token that is not predicted."""
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Answers:
    """Prompts with answers as one batch."""

    tokens: Tensor
    """Inputs, ``(questions, time)``, padded at the end."""
    labels: Tensor
    """Next tokens of answers, else :data:`IGNORED`, ``(questions, time)``."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], start: int) -> Answers:
        """Return the batch of ``pairs`` of prompt and answer, each after the token ``start``."""
        rows = [([start, *prompt], list(answer)) for prompt, answer in pairs]
        width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
        tokens = torch.full((len(rows), width), start)
        labels = torch.full((len(rows), width), IGNORED)
        for row, (prompt, answer) in enumerate(rows):
            text = torch.tensor([*prompt, *answer])
            tokens[row, : len(text) - 1] = text[:-1]
            labels[row, len(prompt) - 1 : len(text) - 1] = text[len(prompt) :]
        return cls(tokens, labels)

    @property
    def counts(self) -> Tensor:
        """Tokens of each answer."""
        return (self.labels != IGNORED).sum(1)


def answer_log_probs(model: nn.Module, answers: Answers) -> Tensor:
    """Return the mean log-probability a token of each answer, ``(questions,)``."""
    return _means(_logits(model, answers.tokens), answers)


@torch.no_grad()
def first_distributions(model: nn.Module, answers: Answers) -> tuple[Tensor, Tensor]:
    """Return the distribution of each answer's first token ``(questions, vocab)``, and that token."""
    at = (answers.labels != IGNORED).int().argmax(1)
    rows = torch.arange(len(at))
    logits = _logits(model, answers.tokens)[rows, at]
    return logits.float().softmax(-1), answers.labels[rows, at]


def relearn(model: nn.Module, answers: Answers, steps: int, learning_rate: float = 1e-3) -> nn.Module:
    """Return a copy of ``model`` after ``steps`` steps of Adam on the cross-entropy of all ``answers``."""
    relearned = copy.deepcopy(model).requires_grad_(True).train()
    optimizer = torch.optim.Adam(relearned.parameters(), learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (-answer_log_probs(relearned, answers).mean()).backward()
        optimizer.step()
    return relearned.eval()


def soft_prompt(
    model: nn.Module,
    answers: Answers,
    *,
    length: int = 20,
    steps: int = 20,
    restarts: int = 5,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> list[Tensor]:
    """Return soft prompts trained on ``answers``, ``(length, width)`` each, one a restart.

    The vectors stand before every question in the place of tokens; the model's weights stay.
    """
    weight = cast("Any", model).model.embed_tokens.weight.detach()
    found = []
    for restart in range(restarts):
        generator = torch.Generator().manual_seed(seed * 1000 + restart)
        chosen = torch.randint(len(weight), (length,), generator=generator)
        prompt = weight[chosen.to(weight.device)].clone().requires_grad_(True)
        optimizer = torch.optim.Adam([prompt], learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            (-log_probs_after(model, prompt, answers).mean()).backward(inputs=[prompt])
            optimizer.step()
        found.append(prompt.detach())
    return found


def log_probs_after(model: nn.Module, prompt: Tensor, answers: Answers) -> Tensor:
    """Return :func:`answer_log_probs` with ``prompt`` ``(length, width)`` before every question."""
    weight = cast("Any", model).model.embed_tokens.weight.detach()
    vectors = torch.arange(len(weight), len(weight) + len(prompt)).expand(len(answers.tokens), -1)
    tokens = torch.cat([vectors, answers.tokens], 1).to(weight.device)
    longer = {EMBEDDING: torch.cat([weight, prompt])}
    logits = functional_call(model, longer, (tokens,))[:, len(prompt) :, : len(weight)]
    return _means(logits, answers)


def _logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(tokens.to(next(model.parameters()).device))
    return found


def _means(logits: Tensor, answers: Answers) -> Tensor:
    labels = answers.labels.to(logits.device)
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view(labels.shape).sum(1) / (labels != IGNORED).sum(1)
