"""Likeliest next tokens of a teacher that a server answers for, its loss, and a probe of its vocabulary.

A block of the text goes to the server as token ids, and comes back as the log-probabilities of the likeliest
tokens at each position and of the block's own, in one of the forms of ``scoring_forms``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.dag.external_shape import ServedModel
from sweeps.data.tokenizer import ExternalTokenizer, load_tokenizer
from sweeps.pretrained.completions import CompletionsClient, RequestRefusedError
from sweeps.pretrained.scoring_forms import FORMS, MISREAD, Position, ScoringForm

CONCURRENT = 16
"""Requests at a time, of a block each; the server batches them."""
PROBED_TOKENS, PROBE_LENGTH, MAX_DIFFERENT = 512, 64, 0.05
"""Tokens of the vocabulary that are compared, in one request, and the largest share that may differ."""
BYTES_OF_SPACE = "Ġ▁ "
"""Forms of a leading space in the strings of tokens."""
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
MAX_BEYOND = 0.01
"""Largest probability of tokens beyond the tokenizer's, such as untrained rows of a padded output."""
ANOTHER_FORM = frozenset({400, 404, 405, 422, 500, 501})
"""Codes by which servers refuse a form of request that they do not have."""


class ScoredBlock(NamedTuple):
    """Answer about one block, for each token but the first."""

    tokens: NDArray[np.int64]
    """Likeliest tokens, the likeliest first, ``(context, top)``."""
    log_p: NDArray[np.float32]
    """Their log-probabilities, in nats."""
    own: NDArray[np.float32]
    """Log-probability of the block's own next token, ``(context,)``."""


class ServedTeacher:
    """Model that a server answers for, over the vocabulary of ``tokenizer``."""

    def __init__(self, served: ServedModel, tokenizer: ExternalTokenizer) -> None:
        self.client, self.tokenizer = CompletionsClient(served), tokenizer
        self.where = f"teacher {served.name} served at {served.url}"
        self.scored_tokens, self.seconds = 0, 0.0
        """Tokens that the server has scored, and the seconds that they took."""

    @property
    def tokens_per_second(self) -> float | None:
        """Measured speed of the server; None if it was asked about nothing."""
        return self.scored_tokens / self.seconds if self.seconds else None

    @cached_property
    def form(self) -> ScoringForm:
        """Form of requests that the server understands.

        Raises:
            InputError: If it understands none, or refuses.
            ServerUnavailableError: If it does not answer.
        """
        prompt, refused, reason = [self.tokenizer.end_of_text_id] * 2, None, ""
        for form in FORMS:
            first = form is FORMS[0]
            try:
                answer = self._ask(form, prompt, 1, frozenset() if first else ANOTHER_FORM)
            except RequestRefusedError as error:
                if first and error.code not in (400, 422):
                    raise
                refused = refused or (error if first else None)
                continue
            try:
                form.positions(answer, prompt)
                return form
            except MISREAD as error:
                reason = repr(error)
        raise refused or self._unreadable(reason)

    def score(self, blocks: NDArray[np.integer], top: int) -> Iterator[ScoredBlock]:
        """Yield the answer about each of ``blocks`` ``(blocks, context + 1)``, in order.

        Raises:
            InputError: If the server refuses, does not score given tokens, or knows other tokens.
            ServerUnavailableError: If it does not answer.
        """
        _, began = self.form, time.monotonic()
        with ThreadPoolExecutor(CONCURRENT) as pool:
            asked = [pool.submit(self._score, [int(each) for each in block], top) for block in blocks]
            try:
                for each in asked:
                    yield each.result()
            finally:
                for each in asked:
                    each.cancel()
        self.seconds += time.monotonic() - began
        self.scored_tokens += blocks.shape[0] * (blocks.shape[1] - 1)

    def check_vocabulary(self) -> None:
        """Compare the strings of tokens spread over the vocabulary with those of the tokenizer.

        Raises:
            InputError: With examples, if they differ.
        """
        strings = load_tokenizer(self.tokenizer.file)
        ids = np.unique(np.linspace(0, self.tokenizer.size - 1, PROBED_TOKENS).astype(int))
        different, compared = list[str](), 0
        for some in np.array_split(ids, -(-len(ids) // PROBE_LENGTH)):
            prompt = [self.tokenizer.end_of_text_id, *(int(each) for each in some)]
            for number, theirs in self._strings(prompt):
                ours = strings.id_to_token(number), strings.decode([number], skip_special_tokens=False)
                if UNPRINTABLE in theirs or UNPRINTABLE in ours[1]:
                    continue
                compared += 1
                if ours[0] is None:
                    different.append(f"{number} is {theirs!r}, which the corpus's tokenizer does not have")
                elif _bare(theirs) not in map(_bare, ours):
                    different.append(f"{number} is {theirs!r}, not {ours[1]!r}")
        if not compared:
            raise self._unreadable("no strings of tokens, by which vocabularies are compared")
        if len(different) > MAX_DIFFERENT * compared:
            raise InputError(
                f"{self.where}: its vocabulary is not that of the corpus: of {compared} tokens that were "
                f"compared {len(different)} are other strings ({', '.join(different[:3])}); set "
                "corpus.tokenizer and the teacher's model to what is served there"
            )

    def _score(self, block: Sequence[int], top: int) -> ScoredBlock:
        each = self._positions(block, top)
        width = min(map(len, each))
        if width < top:
            raise InputError(
                f"{self.where}: it gives {width} log-probabilities a token where {top} are asked for; "
                "let it give more, or lower the method's top"
            )
        likeliest = [sorted(position.items(), key=lambda pair: -pair[1])[:top] for position in each]
        tokens = np.array([[number for number, _ in position] for position in likeliest], dtype=np.int64)
        log_p = np.array([[value for _, value in position] for position in likeliest], dtype=np.float32)
        own = np.array([p.get(t, np.nan) for p, t in zip(each, block[1:], strict=True)], dtype=np.float32)
        if np.isnan(log_p).any() or np.isnan(own).any() or (np.exp(log_p.astype(float)).sum(1) > 1.01).any():
            raise InputError(
                f"{self.where}: its log-probabilities are not those of a distribution, or not of the text "
                "that it was given; it must score prompts at temperature 1"
            )
        return self._without_padding(ScoredBlock(tokens, log_p, own))

    def _without_padding(self, scored: ScoredBlock) -> ScoredBlock:
        """Return ``scored`` without tokens beyond the tokenizer's, as a padded output of a model here is cut.

        In their places are others, of no probability.
        """
        tokens, log_p, own = scored
        beyond = tokens >= self.tokenizer.size
        if not beyond.any():
            return scored
        lost = np.where(beyond, np.exp(log_p.astype(float)), 0.0).sum(1)
        if lost.max() > MAX_BEYOND:
            raise InputError(
                f"{self.where}: it expects token {tokens.max()}, and the corpus's tokenizer has "
                f"{self.tokenizer.size:,}; set corpus.tokenizer to the tokenizer of what is served there"
            )
        tokens = tokens.copy()
        for row in np.flatnonzero(beyond.any(1)):
            free = np.setdiff1d(np.arange(self.tokenizer.size), tokens[row])
            tokens[row, beyond[row]] = free[: beyond[row].sum()]
        log_p = np.where(beyond, -np.inf, log_p - np.log1p(-lost)[:, None]).astype(np.float32)
        order = np.argsort(-log_p, axis=1, kind="stable")
        return ScoredBlock(
            np.take_along_axis(tokens, order, 1),
            np.take_along_axis(log_p, order, 1),
            (own - np.log1p(-lost)).astype(np.float32),
        )

    def _positions(self, block: Sequence[int], top: int) -> list[Position]:
        """Return log-probabilities by token, of each token of ``block`` but the first."""
        return self._read(self.form.positions, self._ask(self.form, block, top), block)

    def _strings(self, prompt: Sequence[int]) -> list[tuple[int, str]]:
        """Return ids and strings of tokens, as the server has them."""
        fields = self.form.fields(self.client.served.name, prompt, 1, strings=True)
        answer = self.client.ask(self.form.path, fields)
        return self._read(self.form.strings, answer, prompt)

    def _ask(
        self, form: ScoringForm, prompt: Sequence[int], top: int, refusals: frozenset[int] = frozenset()
    ) -> dict[str, Any]:
        return self.client.ask(form.path, form.fields(self.client.served.name, prompt, top), refusals)

    def _read(self, read: Callable[..., Iterable[Any]], answer: dict[str, Any], prompt: Sequence[int]) -> Any:
        try:
            return list(read(answer, prompt))
        except MISREAD as error:
            raise self._unreadable(repr(error)) from None

    def _unreadable(self, what: str) -> InputError:
        return InputError(
            f"{self.where}: its answer is not that of a server that scores given tokens ({what}); vLLM does "
            "at /v1/completions, SGLang at /generate; llama.cpp's server and Ollama score none"
        )


def _bare(text: str | None) -> str:
    return (text or "").lstrip(BYTES_OF_SPACE)
