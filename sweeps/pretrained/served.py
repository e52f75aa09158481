"""Likeliest next tokens of a teacher that a server answers for, its loss, and a probe of its vocabulary.

A block of the text goes to the server as token ids, and comes back as the log-probabilities of the likeliest
tokens at each position and of the block's own: vLLM's ``prompt_logprobs``, or ``echo`` with ``logprobs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.dag.external_shape import ServedModel
from sweeps.data.tokenizer import ExternalTokenizer, load_tokenizer
from sweeps.pretrained.completions import CompletionsClient

CONCURRENT = 16
"""Requests at a time, of a block each; the server batches them."""
PROBED_TOKENS, PROBE_LENGTH, MAX_DIFFERENT = 512, 64, 0.05
"""Tokens of the vocabulary that are compared, in one request, and the largest share that may differ."""
BYTES_OF_SPACE = "Ġ▁ "
"""Forms of a leading space in the strings of tokens."""
ID_PREFIX = "token_id:"
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


class ScoredBlock(NamedTuple):
    """Answer about one block, for each token but the first."""

    tokens: NDArray[np.int64]
    """Likeliest tokens, ``(context, top)``."""
    log_p: NDArray[np.float32]
    """Their log-probabilities, in nats."""
    own: NDArray[np.float32]
    """Log-probability of the block's own next token, ``(context,)``."""


class ServedTeacher:
    """Model that a server answers for, over the vocabulary of ``tokenizer``."""

    def __init__(self, served: ServedModel, tokenizer: ExternalTokenizer) -> None:
        self.client, self.tokenizer = CompletionsClient(served), tokenizer
        self.where = f"teacher {served.name} served at {served.url}"

    def score(self, blocks: NDArray[np.integer], top: int) -> Iterator[ScoredBlock]:
        """Yield the answer about each of ``blocks`` ``(blocks, context + 1)``, in order.

        Raises:
            InputError: If the server refuses, does not score given tokens, or knows other tokens.
            ServerUnavailableError: If it does not answer.
        """
        with ThreadPoolExecutor(CONCURRENT) as pool:
            asked = [pool.submit(self._score, [int(each) for each in block], top) for block in blocks]
            try:
                for each in asked:
                    yield each.result()
            finally:
                for each in asked:
                    each.cancel()

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
        width = [len(position) for position in each]
        if min(width) < top:
            raise InputError(
                f"{self.where}: it gives {min(width)} log-probabilities a token where {top} are asked for; "
                "let it give more, or lower the method's top"
            )
        likeliest = [sorted(position.items(), key=lambda pair: -pair[1])[:top] for position in each]
        tokens = np.array([[number for number, _ in position] for position in likeliest], dtype=np.int64)
        log_p = np.array([[value for _, value in position] for position in likeliest], dtype=np.float32)
        own = np.array([p.get(t, np.nan) for p, t in zip(each, block[1:], strict=True)], dtype=np.float32)
        self._check(tokens, log_p, own)
        return ScoredBlock(tokens, log_p, own)

    def _check(self, tokens: NDArray[np.int64], log_p: NDArray[np.float32], own: NDArray[np.float32]) -> None:
        if tokens.max() >= self.tokenizer.size:
            raise InputError(
                f"{self.where}: it expects token {tokens.max()}, and the corpus's tokenizer has "
                f"{self.tokenizer.size:,}; set corpus.tokenizer to the tokenizer of what is served there"
            )
        if np.isnan(log_p).any() or np.isnan(own).any() or (np.exp(log_p.astype(float)).sum(1) > 1.01).any():
            raise InputError(
                f"{self.where}: its log-probabilities are not those of a distribution, or not of the text "
                "that it was given; it must score prompts at temperature 1"
            )

    def _positions(self, block: Sequence[int], top: int) -> list[dict[int, float]]:
        """Return log-probabilities by token, of each token of ``block`` but the first."""
        found = self._choice(block, top).get("prompt_logprobs")
        if found is None:
            found = self._echoed(block, top)
        try:
            positions = [
                {
                    int(number): float(said["logprob"] if isinstance(said, dict) else said)
                    for number, said in position.items()
                }
                for position in found[1 : len(block)]
            ]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self._unreadable(repr(error)) from None
        if len(positions) != len(block) - 1:
            raise self._unreadable(f"{len(positions)} positions of a prompt of {len(block)} tokens")
        return positions

    def _choice(self, block: Sequence[int], top: int, **more: Any) -> dict[str, Any]:
        asked = more or {"prompt_logprobs": top}
        answer = self.client.completions(prompt=list(block), max_tokens=1, temperature=1.0, **asked)
        try:
            (choice,) = answer["choices"]
            return dict(choice)
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreadable(repr(error)) from None

    def _echoed(self, block: Sequence[int], top: int) -> list[dict[str, float]]:
        """Ask by ``echo`` with ``logprobs``, whose tokens are named by their ids."""
        choice = self._choice(block, top, echo=True, logprobs=top, return_tokens_as_token_ids=True)
        said = choice.get("logprobs") or {}
        names, own, likeliest = (
            said.get(each) or [] for each in ("tokens", "token_logprobs", "top_logprobs")
        )
        if not likeliest or not str(names[0]).startswith(ID_PREFIX):
            raise self._unreadable("neither prompt_logprobs nor echoed logprobs by token id")
        return [
            {name.removeprefix(ID_PREFIX): value for name, value in {**(each or {}), name: mine}.items()}
            for each, name, mine in zip(likeliest, names, own, strict=True)
        ]

    def _strings(self, prompt: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield ids and strings of tokens, as the server has them."""
        found = self._choice(prompt, 1).get("prompt_logprobs")
        if found is not None:
            for position in found[1:]:
                for number, said in position.items():
                    if isinstance(said, dict) and isinstance(text := said.get("decoded_token"), str):
                        yield int(number), text
            return
        said = self._choice(prompt, 1, echo=True, logprobs=1).get("logprobs") or {}
        yield from zip(prompt[1:], said.get("tokens", [])[1 : len(prompt)], strict=False)

    def _unreadable(self, what: str) -> InputError:
        return InputError(
            f"{self.where}: its answer is not that of an OpenAI-style server that scores given tokens "
            f"({what}); vLLM answers so at /v1/completions"
        )


def _bare(text: str | None) -> str:
    return (text or "").lstrip(BYTES_OF_SPACE)
