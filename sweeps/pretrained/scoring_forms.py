"""Forms in which servers score given tokens: what each is asked, and how its answer is read.

::

    PromptLogprobs   vLLM        /v1/completions, prompt_logprobs: {id: {logprob, rank, decoded_token}}
    Echo             of others   /v1/completions, echo with logprobs, tokens named token_id:N
    NativeGenerate   SGLang      /generate, input_top_logprobs: [[logprob, id, text], ...]

In all of them the first token has no distribution, and the prompt's own token comes beside the likeliest if
it is none of them. Strings name no token: several ids of byte-level vocabularies are read as the same string.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ID_PREFIX = "token_id:"
LEAST = -9999.0
"""Log-probability that servers write for minus infinity, which JSON does not have."""

Position = Mapping[int, float]
"""Log-probabilities by token, nats."""
MISREAD = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""Errors of an answer that is not of the form."""


class ScoringForm(Protocol):
    """A way to ask a server about given tokens; reading raises one of :data:`MISREAD`."""

    @property
    def path(self) -> str:
        """Endpoint, beside ``/v1`` or, after ``../``, at the server's root."""

    def fields(self, model: str, prompt: Sequence[int], top: int, strings: bool = False) -> dict[str, Any]:
        """Return the fields of a request for the ``top`` likeliest at each position, or for strings."""

    def positions(self, answer: dict[str, Any], prompt: Sequence[int]) -> list[Position]:
        """Return what is said of each token of ``prompt`` but the first."""

    def strings(self, answer: dict[str, Any], prompt: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield tokens with their strings."""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """vLLM's ``prompt_logprobs``, of each choice."""

    path: str = "completions"

    def fields(self, model: str, prompt: Sequence[int], top: int, strings: bool = False) -> dict[str, Any]:  # noqa: ARG002
        return _completion(model, prompt) | {"prompt_logprobs": top}

    def positions(self, answer: dict[str, Any], prompt: Sequence[int]) -> list[Position]:
        return [
            {int(token): log_p_of(said["logprob"]) for token, said in position.items()}
            for position in self._scored(answer, prompt)
        ]

    def strings(self, answer: dict[str, Any], prompt: Sequence[int]) -> Iterator[tuple[int, str]]:
        for position in self._scored(answer, prompt):
            for token, said in position.items():
                if isinstance(text := said.get("decoded_token"), str):
                    yield int(token), text

    def _scored(self, answer: dict[str, Any], prompt: Sequence[int]) -> list[dict[str, Any]]:
        return _of_prompt(_choice(answer)["prompt_logprobs"], prompt)[1:]


@dataclass(frozen=True, slots=True)
class Echo:
    """OpenAI's ``echo`` with ``logprobs``, by servers that can name tokens by their ids."""

    path: str = "completions"

    def fields(self, model: str, prompt: Sequence[int], top: int, strings: bool = False) -> dict[str, Any]:
        by_id = {} if strings else {"return_tokens_as_token_ids": True}
        return _completion(model, prompt) | {"echo": True, "logprobs": top} | by_id

    def positions(self, answer: dict[str, Any], prompt: Sequence[int]) -> list[Position]:
        said = _choice(answer)["logprobs"]
        own = [_id_of(name) for name in said["tokens"][: len(prompt)]]
        _require_same(own, prompt)
        log_p, likeliest = (said[name][: len(prompt)] for name in ("token_logprobs", "top_logprobs"))
        return [
            {_id_of(name): log_p_of(value) for name, value in each.items()} | {token: log_p_of(mine)}
            for token, mine, each in list(zip(own, log_p, likeliest, strict=True))[1:]
        ]

    def strings(self, answer: dict[str, Any], prompt: Sequence[int]) -> Iterator[tuple[int, str]]:
        texts = _of_prompt(_choice(answer)["logprobs"]["tokens"][: len(prompt)], prompt)
        yield from zip(prompt[1:], texts[1:], strict=True)


@dataclass(frozen=True, slots=True)
class NativeGenerate:
    """SGLang's own endpoint; its ``/v1/completions`` names tokens by strings alone."""

    path: str = "../generate"

    def fields(self, model: str, prompt: Sequence[int], top: int, strings: bool = False) -> dict[str, Any]:  # noqa: ARG002
        return {
            "input_ids": list(prompt),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": top,
            "return_text_in_logprobs": strings,
        }

    def positions(self, answer: dict[str, Any], prompt: Sequence[int]) -> list[Position]:
        own, likeliest = self._scored(answer, prompt)
        return [
            {int(token): log_p_of(value) for value, token, _ in (*each, mine)}
            for mine, each in zip(own[1:], likeliest[1:], strict=True)
        ]

    def strings(self, answer: dict[str, Any], prompt: Sequence[int]) -> Iterator[tuple[int, str]]:
        own, _ = self._scored(answer, prompt)
        yield from ((int(token), text) for _, token, text in own[1:] if isinstance(text, str))

    def _scored(self, answer: dict[str, Any], prompt: Sequence[int]) -> tuple[list[Any], list[Any]]:
        said = answer["meta_info"]
        own, likeliest = (_of_prompt(said[f"input_{name}_logprobs"], prompt) for name in ("token", "top"))
        _require_same([int(token) for _, token, _ in own], prompt)
        return own, likeliest


FORMS: tuple[ScoringForm, ...] = (PromptLogprobs(), Echo(), NativeGenerate())
"""Forms in the order in which a server is tried."""


def log_p_of(value: float) -> float:
    """Return a log-probability as it was before it was written as JSON."""
    return -math.inf if value <= LEAST else float(value)


def _completion(model: str, prompt: Sequence[int]) -> dict[str, Any]:
    return {"model": model, "prompt": list(prompt), "max_tokens": 1, "temperature": 1.0}


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    (choice,) = answer["choices"]
    return dict(choice)


def _of_prompt(positions: list[Any], prompt: Sequence[int]) -> list[Any]:
    if len(positions) != len(prompt):
        raise ValueError(f"{len(positions)} positions of a prompt of {len(prompt)} tokens")
    return positions


def _require_same(tokens: Sequence[int], prompt: Sequence[int]) -> None:
    if list(tokens) != list(prompt):
        raise ValueError("other tokens than the prompt's")


def _id_of(name: str) -> int:
    if not name.startswith(ID_PREFIX):
        raise ValueError("tokens named by strings, which several share")
    return int(name.removeprefix(ID_PREFIX))
