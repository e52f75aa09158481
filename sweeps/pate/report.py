"""Statement of what a release promises: unit, neighbors, mechanism, cost, and limits."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.pate.ledger import Ledger

CAVEATS = (
    "Noise is drawn in floating point, which is not exactly Gaussian: the statement is research-grade.",
    "The random numbers follow from the seed; whoever knows it can subtract the noise.",
    "Releases add up: every other seed of the data, option or corpus is a release of its own.",
    "Held-out losses and other metrics are measured on the text itself and are not covered.",
)


@dataclass(frozen=True, kw_only=True)
class PrivacyReport:
    """Promise and cost of a release."""

    teachers: int
    shard_tokens: int
    mechanism: str
    epsilon: float
    """Epsilon spent; infinite without noise."""
    epsilon_budget: float
    delta: float
    rho: float
    queries: int
    refusals: int
    released_tokens: int
    text_tokens: int
    """Tokens of the text, those of the public model and start tokens included."""
    threshold: float
    sigma: float
    """Noise on each count, votes."""
    likely_tokens: float | None = None
    """Number of about equally likely tokens, k: geometric mean of 1 / max_j of the mean teacher on public
    text; None if nothing was simulated there."""
    public_vocabulary: bool = True
    """False if the vocabulary was made of the private text too."""

    @classmethod
    def of(cls, ledger: Ledger, **about: Any) -> PrivacyReport:
        """Return the report of a release with this ledger; ``about`` are the other fields."""
        return cls(
            epsilon=ledger.epsilon,
            epsilon_budget=ledger.budget.epsilon,
            delta=ledger.budget.delta,
            rho=ledger.rho,
            queries=ledger.attempts,
            refusals=ledger.refusals,
            released_tokens=ledger.answers,
            **about,
        )

    @property
    def unit(self) -> str:
        """Unit of privacy."""
        return f"one of {self.teachers:,} shards of {self.shard_tokens:,} tokens"

    @property
    def neighbors(self) -> str:
        """Neighbor relation."""
        return "two texts are neighbors if one shard is replaced by any other of its length"

    @property
    def claim(self) -> str:
        """Promise in one sentence."""
        if math.isinf(self.epsilon):
            return f"no privacy claim: the threshold of {self.threshold:g} votes is a proxy only"
        return f"({self.epsilon:.4g}, {self.delta:g})-differential privacy"

    @property
    def caveats(self) -> tuple[str, ...]:
        """Limits of the promise."""
        vocabulary = "The vocabulary was made of the private text too, which is not covered."
        return CAVEATS if self.public_vocabulary else (*CAVEATS, vocabulary)

    def columns(self) -> dict[str, float]:
        """Return numbers for the runs table; epsilon and rho are missing where nothing is claimed."""
        found = {
            "epsilon": self.epsilon,
            "rho": self.rho,
            "delta": self.delta,
            "queries": self.queries,
            "refusals": self.refusals,
            "released_tokens": self.released_tokens,
            "text_tokens": self.text_tokens,
            "threshold": self.threshold,
            "sigma": self.sigma,
            "private_teachers": self.teachers,
            "teacher_queries": self.queries * self.teachers,
            "likely_tokens": self.likely_tokens,
        }
        return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON; infinite numbers are null."""
        own = asdict(self) | {"unit": self.unit, "neighbors": self.neighbors, "claim": self.claim}
        plain = {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in own.items()}
        return plain | {"accountant": "zCDP, worst case", "caveats": list(self.caveats)}

    def __str__(self) -> str:
        yielded = self.released_tokens / max(1, self.queries)
        return "\n".join(
            [
                f"{self.claim}, unit: {self.unit}; {self.neighbors}",
                f"mechanism: {self.mechanism}; rho = {self.rho:.4g} (zCDP, worst case), every query charged",
                f"{self.queries:,} queries, {self.refusals:,} refused, {self.released_tokens:,} tokens "
                f"released ({yielded:.1%}), {self.text_tokens:,} tokens of text",
                *self.caveats,
            ]
        )
