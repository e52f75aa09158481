"""Compact formats of a teacher's distributions: few tokens of each, bit by bit, compressed.

::

    a block of the stream: columns of all its tokens, one after the other, then Zstandard
        numbers of tokens kept     8 bits each, 16 from 256 on; none where it is always the same
        probabilities or counts    8 or 16 bits each; counts as few bits as the number of draws takes
        ids                        ceil(log2 vocab) bits each

In memory, a token is a row of fixed width; places that are not used have the token -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.costs.logit_storage import Bits, Kind, LogitStorage, bits_for, number_bits
from sweeps.distill.caches.bit_packing import pack_bits, packed_bytes, unpack_bits
from sweeps.distill.divergences import with_rest
from sweeps.model.log_probs import log_probabilities

UNUSED = -1e4
"""Log-probability of unused places, of teacher and student alike: exp is 0, and divergences are finite."""
STEP = 1 / 16
"""Distance of log-probabilities in 8 bits: KL of the distribution and what is read <= STEP^2 / 8 = 5e-4."""
ROUNDING = 2.0**-24
"""Half the distance of float32 numbers below 1, in which servers give log-probabilities."""
LOWEST, EXCLUDED = 254, 255
"""Codes of 8 bits for the lowest log-probability, -15.875, and for -inf."""


@runtime_checkable
class CompactFormat(Protocol):
    """Format whose blocks have another layout on disk than in memory."""

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token in memory."""

    def encode(self, rows: NDArray[np.void]) -> bytes:
        """Return what is written of a block, ``(context,)``, before it is compressed."""

    def decode(self, data: bytes, context: int) -> NDArray[np.void]:
        """Return the block that :meth:`encode` wrote, ``(context,)``."""

    def most_bytes(self, context: int) -> int:
        """Return the bytes of :meth:`encode` where every place is used."""


@dataclass(frozen=True, slots=True)
class CompactTop:
    """The likeliest tokens, ``top`` or as many as have ``mass`` together, and one outcome more: any other.

    A loss reads it as :class:`~sweeps.distill.caches.logit_format.TopK`. In 16 bits a log-probability is
    rounded by at most 2^-11 of it; in 8 bits by at most 1/32, and those below -15.875 are read as that.
    """

    vocab: int
    top: int
    mass: float | None = None
    """The fewest tokens are kept whose probabilities sum to at least this; ``top`` of them at most."""
    bits: Bits = 16

    @property
    def dtype(self) -> np.dtype:
        return np.dtype([("log_p", "<f2", self.top + 1), ("tokens", "<i4", self.top)])

    def pack(self, log_p: Tensor) -> NDArray[np.void]:
        """Return what is kept of ``log_p`` ``(tokens, vocab)``: ``(tokens,)`` of :attr:`dtype`."""
        likeliest = log_p.topk(self.top)
        return self.pack_sparse(likeliest.indices, likeliest.values, log_p)

    def pack_sparse(self, tokens: Tensor, found: Tensor, log_p: Tensor | None = None) -> NDArray[np.void]:
        """Return what is kept of the likeliest tokens and their log-probabilities, ``(tokens, top)`` each.

        They are sorted, the likeliest first. The tail's mass is :func:`missing_mass`, or is summed from
        ``log_p`` ``(tokens, vocab)`` if that is given, which is exact where it is small.
        """
        used = tokens >= 0
        if self.mass is not None:
            p = found.double().exp()
            used = p.cumsum(-1) - p < self.mass
        padded = torch.where(used, tokens, tokens[:, :1])
        if log_p is None:
            rest = missing_mass(found.masked_fill(~used, -torch.inf))
        else:
            rest = with_rest(log_p, padded)[1]
        packed = np.empty(len(tokens), self.dtype)
        packed["log_p"] = self._rounded(torch.cat([found, rest], -1))
        packed["tokens"] = torch.where(used, tokens, -1).cpu().numpy()
        packed["log_p"][:, :-1][packed["tokens"] < 0] = UNUSED
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Return log-probabilities of tokens and tail, then tokens, ``(tokens, 2 top + 1)``."""
        tokens, log_p = packed["tokens"], packed["log_p"].astype(np.float32)
        tokens = np.where(tokens < 0, tokens[:, :1], tokens)
        return torch.from_numpy(np.concatenate([log_p, tokens.astype(np.float32)], axis=-1))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        assert temperature == 1, "the tail is one outcome, whose share at another temperature is unknown"
        return log_probabilities(rows[:, : self.top + 1])

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        log_p, tokens = rows[:, : self.top], rows[:, self.top + 1 :].long()
        found, rest = with_rest(log_q, tokens)
        return torch.cat([found.masked_fill(log_p <= UNUSED, UNUSED), rest], -1)

    def encode(self, rows: NDArray[np.void]) -> bytes:
        used = rows["tokens"] >= 0
        with_tail = np.concatenate([used, np.ones((len(rows), 1), bool)], axis=1)
        numbers = b"" if self.mass is None else used.sum(1).astype(_type_of(self.top)).tobytes()
        codes = rows["log_p"][with_tail] if self.bits == 16 else _codes(rows["log_p"][with_tail])
        return numbers + codes.tobytes() + pack_bits(rows["tokens"][used], bits_for(self.vocab))

    def decode(self, data: bytes, context: int) -> NDArray[np.void]:
        if self.mass is None:
            numbers, at = np.full(context, self.top), 0
        else:
            numbers = np.frombuffer(data, _type_of(self.top), context).astype(np.int64)
            at = context * np.dtype(_type_of(self.top)).itemsize
        used = np.arange(self.top) < numbers[:, None]
        with_tail = np.concatenate([used, np.ones((context, 1), bool)], axis=1)
        count = int(numbers.sum())
        codes = np.frombuffer(data, "<f2" if self.bits == 16 else "u1", count + context, at)
        rows = np.empty(context, self.dtype)
        rows["log_p"], rows["tokens"] = UNUSED, -1
        _place(rows, "log_p", with_tail, codes if self.bits == 16 else _from_codes(codes))
        ids = memoryview(data)[at + codes.nbytes :]
        _place(rows, "tokens", used, unpack_bits(ids, count, bits_for(self.vocab)))
        return rows

    def most_bytes(self, context: int) -> int:
        kind: Kind = "top-k" if self.mass is None else "top-p"
        return LogitStorage(kind, self.vocab, self.top, self.bits).block_bytes(context)

    def _rounded(self, log_p: Tensor) -> NDArray[np.float16]:
        if self.bits == 8:
            return _from_codes(_codes(log_p.float().cpu().numpy()))
        found: NDArray[np.float16] = halved(log_p, UNUSED / 2)
        return found


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens drawn with replacement, an unbiased estimate of the distribution (arXiv 2503.16870).

    Of ``draws`` tokens from q proportional to p^power, token v is kept with the weight
    (times drawn / draws) p(v) / q(v), whose expectation is p(v). Cross-entropy, and so forward KL but for the
    teacher's entropy, is linear in the target: its gradient is that of the whole distribution in expectation.
    At power 1 the weights are the frequencies, kept exactly; else in half precision, to 2^-11 of their
    logarithm, and they sum to one in expectation only.

    Students of 13k parameters on the King James Bible (V = 512) end .036 +- .011 nats/token above those of
    whole distributions with 24 draws in 23 bytes a token, .026 +- .023 with 50 in 39; the 12 likeliest in 25
    bytes cost .325 +- .011 (benchmarks/sparse_logits.py, three seeds, 90 % intervals).
    """

    vocab: int
    draws: int
    power: float = 1.0

    @property
    def dtype(self) -> np.dtype:
        weight: Any = ("counts", _type_of(self.draws)) if self.power == 1 else ("log_w", "<f2")
        return np.dtype([(*weight, self.draws), ("tokens", "<i4", self.draws)])

    def pack(self, log_p: Tensor, uniform: Tensor) -> NDArray[np.void]:
        """Return what is kept of ``log_p`` ``(tokens, vocab)``: ``(tokens,)`` of :attr:`dtype`.

        Args:
            log_p: Normalized log-probabilities.
            uniform: Numbers in [0, 1) in float64, ``(tokens, draws)``: which tokens are drawn.
        """
        log_q = log_p if self.power == 1 else torch.log_softmax(self.power * log_p, -1)
        cumulative = log_q.double().exp().cumsum(-1)
        drawn = torch.searchsorted(cumulative, uniform.to(log_p.device) * cumulative[:, -1:], right=True)
        drawn = drawn.clamp(max=self.vocab - 1).sort(-1).values
        first = torch.ones_like(drawn, dtype=torch.bool)
        first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        place = first.cumsum(-1) - 1
        counts = torch.zeros_like(drawn).scatter_add(-1, place, torch.ones_like(drawn))
        tokens = torch.full_like(drawn, -1).scatter(-1, place, drawn)
        packed = np.zeros(len(log_p), self.dtype)
        packed["tokens"] = tokens.cpu().numpy()
        if self.power == 1:
            packed["counts"] = counts.cpu().numpy()
            return packed
        at = tokens.clamp(min=0)
        log_w = (counts / self.draws).log() + log_p.gather(-1, at) - log_q.gather(-1, at)
        packed["log_w"] = log_w.masked_fill(tokens < 0, 0.0).half().cpu().numpy()
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Return logarithms of weights, then tokens, ``(tokens, 2 draws)``."""
        used = packed["tokens"] >= 0
        if self.power == 1:
            log_w = np.log(np.where(used, packed["counts"], 1).astype(np.float32) / np.float32(self.draws))
        else:
            log_w = packed["log_w"].astype(np.float32)
        log_w[~used] = UNUSED
        tokens = np.where(used, packed["tokens"], 0).astype(np.float32)
        return torch.from_numpy(np.concatenate([log_w, tokens], axis=-1))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        assert temperature == 1, "tokens were drawn at temperature 1"
        return rows[:, : self.draws]

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """Return the student's ``log_q`` at the tokens that were drawn."""
        return log_q.gather(-1, rows[:, self.draws :].long())

    def encode(self, rows: NDArray[np.void]) -> bytes:
        used = rows["tokens"] >= 0
        numbers = used.sum(1).astype(_type_of(self.draws)).tobytes()
        if self.power == 1:
            weights = pack_bits(rows["counts"][used] - 1, bits_for(self.draws))
        else:
            weights = rows["log_w"][used].tobytes()
        return numbers + weights + pack_bits(rows["tokens"][used], bits_for(self.vocab))

    def decode(self, data: bytes, context: int) -> NDArray[np.void]:
        view, kind = memoryview(data), _type_of(self.draws)
        numbers = np.frombuffer(data, kind, context).astype(np.int64)
        count, at = int(numbers.sum()), numbers.size * np.dtype(kind).itemsize
        used = np.arange(self.draws) < numbers[:, None]
        rows = np.zeros(context, self.dtype)
        rows["tokens"] = -1
        if self.power == 1:
            ids = at + packed_bytes(count, bits_for(self.draws))
            _place(rows, "counts", used, unpack_bits(view[at:ids], count, bits_for(self.draws)) + 1)
        else:
            ids = at + 2 * count
            _place(rows, "log_w", used, np.frombuffer(data, "<f2", count, at))
        _place(rows, "tokens", used, unpack_bits(view[ids:], count, bits_for(self.vocab)))
        return rows

    def most_bytes(self, context: int) -> int:
        return LogitStorage("sampled", self.vocab, self.draws, power=self.power).block_bytes(context)


def missing_mass(log_p: Tensor) -> Tensor:
    """Return the logarithm of what ``log_p`` ``(tokens, top)`` lack to 1, ``(tokens, 1)``.

    It is :data:`ROUNDING` at least: rounded numbers may sum to 1 where others have some probability still.
    """
    return (1 - log_p.double().exp().sum(-1, keepdim=True)).clamp(min=ROUNDING).log().to(log_p.dtype)


def _type_of(most: int) -> str:
    return f"<u{number_bits(most) // 8}"


def _place(rows: NDArray[np.void], field: str, used: NDArray[np.bool_], values: NDArray[Any]) -> None:
    column = rows[field].copy()
    column[used] = values
    rows[field] = column


def halved(log_p: Tensor, floor: float) -> NDArray[np.float16]:
    """Return ``log_p`` in half precision, not below ``floor`` but where a token is excluded."""
    found: NDArray[np.float16] = (
        torch.where(log_p.isneginf(), log_p, log_p.clamp(min=floor)).half().cpu().numpy()
    )
    return found


def _codes(log_p: NDArray[np.floating]) -> NDArray[np.uint8]:
    finite = np.where(np.isneginf(log_p), 0, log_p).astype(np.float32)
    codes = np.clip(np.rint(-finite / STEP), 0, LOWEST)
    return np.where(np.isneginf(log_p), EXCLUDED, codes).astype(np.uint8)


def _from_codes(codes: NDArray[np.uint8]) -> NDArray[np.float16]:
    found: NDArray[np.float16] = np.where(codes == EXCLUDED, -np.inf, codes * -STEP).astype(np.float16)
    return found
