"""Private text: tokens that teachers on shards release by Hot PATE (arXiv 2312.02132), with a ledger."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from scaling.errors import InputError
from scaling.private.accounting import PrivacyBudget, check_delta, rho_of
from scaling.units import parse_number
from sweeps.data.corpus import planned_tokens
from sweeps.methods.ensemble_text import EnsembleText, reasons, start_token
from sweeps.pate.ledger import Ledger
from sweeps.pate.randomness import OneTimeRandomness
from sweeps.pate.release import ReleaseRule, release_rule
from sweeps.pate.tuning import SIGMAS, THRESHOLDS, choose_release, with_likely_tokens
from sweeps.spec.fields import Count, Number
from sweeps.spec.method.compatibility import given

if TYPE_CHECKING:
    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.pate.generator import Group
    from sweeps.pate.journal import ReleaseJournal
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep

SETTLED = ("threshold", "sigma", "likely_tokens")
"""Settled before the first query; the last where a simulation on public text chose the first two."""
INFINITE = ("inf", "infinity", "infinite")
READS_PRIVATE_TEXT = ("init", "delta", "neighbours", "target", "pretraining")
"""Fields of a method that would let a student, or its target, read the private text past the ledger."""


def _epsilon(value: Any) -> Any:
    """Return ``infinite``, or a number."""
    if value == math.inf or (isinstance(value, str) and value.strip(" +.").lower() in INFINITE):
        return "infinite"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number such as 8, or infinite, not {value!r}")
    try:
        return parse_number(value, "value")
    except InputError as error:
        raise ValueError(f"{str(error).removeprefix('value: ')}; or infinite, with a threshold") from None


class PrivateText(EnsembleText):
    """Tokens that the teachers' votes release under a budget of differential privacy."""

    version: ClassVar[str | None] = "2"
    votes: Literal["hot", "cold"] = "hot"
    """Votes with shared randomness, or independent ones."""
    release: Literal["confident-gnmax", "homogeneous", "heterogeneous"] = "confident-gnmax"
    """Mechanism, see :mod:`sweeps.pate.release`."""
    epsilon: Annotated[Any, PlainValidator(_epsilon), WithJsonSchema({"type": ["number", "string"]})]
    """Privacy budget of all queries together; ``infinite`` for a threshold alone, without a privacy claim."""
    delta: Number = 1e-5
    """Probability that the promise fails; at most 1/n."""
    sigma: Number | None = None
    """Noise on each count, votes. If not given: what ``queries`` need; without those the best, together with
    the threshold, of a simulation on the public half; none where epsilon is infinite."""
    test_sigma: Number | None = None
    """Noise of the test of ``confident-gnmax``, votes; ``sigma`` if not given."""
    threshold: Number | None = None
    """Votes that a token needs; if not given, the best of the simulation."""
    queries: Annotated[Count, Field(ge=1)] | None = None
    """Queries at most; if not given, as many as the budget affords."""
    tries: Annotated[Count, Field(ge=1)] = 1
    """Queries for one token, each charged."""
    after_refusal: Literal["public", "end"] = "public"
    """Let the public model write a token that was refused, or end the sequence."""

    text_tokens: Annotated[Count, Field(ge=0)] = 0
    """Tokens that the text has at least: the public model writes what the budget leaves, which costs none."""

    @property
    def budget(self) -> PrivacyBudget:
        """Privacy budget of the release."""
        return PrivacyBudget(math.inf if self.epsilon == "infinite" else self.epsilon, self.delta)

    @property
    def sigmas(self) -> list[float]:
        """Noise on counts, votes; several where the best is to be found."""
        if self.sigma is not None:
            return [self.sigma]
        if self.epsilon == "infinite":
            return [0.0]
        if self.queries is None:
            return [share * self.teachers for share in SIGMAS]
        unit = self._rule(0.0, 1.0).cost.whole
        return [math.sqrt(unit * self.queries / rho_of(self.epsilon, self.delta))]

    @property
    def thresholds(self) -> list[float]:
        """Thresholds, votes; several where the best is to be found."""
        if self.threshold is not None:
            return [self.threshold]
        least = 0.5 if self.release == "homogeneous" else 0.0
        return [share * self.teachers for share in THRESHOLDS if share > least]

    def objections(self, method: Method) -> Iterator[str]:
        yield from super().objections(method)
        yield from self._budget_objections()
        if self.threshold is not None:
            yield from self._threshold_objections(self.threshold)
        for name in READS_PRIVATE_TEXT:
            if given(method, name):
                yield f"{name}: it reads the private text, which no query is charged for; remove it"

    def _budget_objections(self) -> Iterator[str]:
        if wrong := list(reasons(lambda: self.budget)):
            yield from wrong
            return
        yield from reasons(check_delta, self.delta, self.teachers)
        if self.epsilon == "infinite":
            if self.threshold is None:
                yield "threshold: without a budget only a threshold protects a shard; give one, in votes"
            if self.queries is None:
                yield "queries: without a budget nothing ends the release; say how many queries to make"
            return
        sigma = self.sigmas[-1]
        if self.sigma is None and self.test_sigma is not None:
            yield "test_sigma: it goes beside the noise of the answer; give sigma too"
        elif sigma <= 0 or (self.test_sigma is not None and self.test_sigma <= 0):
            yield "sigma: without noise no epsilon is finite; give a positive number of votes"
        elif (most := self.budget.queries(self._rule(0.0, sigma).cost)) < 1:
            yield (
                f"epsilon: {self.epsilon:g} at delta = {self.delta:g} affords no query with noise of "
                f"{sigma:g} votes; raise epsilon, or sigma"
            )
        elif self.queries and self.queries > most:
            yield (
                f"queries: {self.queries:,} at sigma = {sigma:g} exceed epsilon = {self.epsilon:g} at "
                f"delta = {self.delta:g}, which affords {most:,.0f}; ask for fewer, or raise sigma or epsilon"
            )

    def _threshold_objections(self, threshold: float) -> Iterator[str]:
        least = self.teachers / 2 if self.release == "homogeneous" else 0
        if not least < threshold <= self.teachers:
            yield (
                f"threshold: {threshold:g} votes of {self.teachers:,}; {self.release} needs more than "
                f"{least:g} and at most n"
            )

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        yield from super().sweep_objections(sweep, method)
        if len(self.thresholds) * len(self.sigmas) > 1 and not sweep.corpus.halves:
            yield "threshold: it is found on a public half; set corpus.halves: true, or give it, and sigma"

    def teacher_tokens(self, tokens: float) -> float:
        """Return the most tokens that the public model, or all teachers, may have to read."""
        test = self._rule(0.0, self.sigmas[-1]).cost.test
        affordable = self.budget.rho / test if test else math.inf
        most = min(self.queries or math.inf, affordable)
        most += self.text_tokens
        return most * (1 if self.by == "counts" else 1 + self.teachers)

    def groups(self, models: Models, data: Batches) -> list[Group]:
        from sweeps.pate.generator import PrivateGenerator
        from sweeps.pate.journal import ReleaseJournal

        journal = ReleaseJournal(models.store, models.step.id)
        key = self.key(models, data)
        rule = self._rule_of(self._settled(journal, models, key))
        done = journal.groups()
        ledger = self._ledger(rule, done)
        generator = PrivateGenerator(
            open=lambda sequences: self.teachers_along(models, data.tokens, sequences),
            rule=rule,
            ledger=ledger,
            randomness=OneTimeRandomness(key, last=ledger.attempts - 1),
            votes=self.votes,
            start=start_token(models.step),
            length=self.written_length(data.context),
            tries=self.tries,
            fill=self.after_refusal == "public",
            most_at_once=64 if self.by == "counts" else max(1, 512 // self.teachers),
        )
        done += journal.written(generator.groups(len(done)), len(done))
        rest = self._public_rest(models, data, OneTimeRandomness(key), done)
        return [*done, *journal.written(rest, len(done))]

    def _public_rest(
        self, models: Models, data: Batches, randomness: OneTimeRandomness, done: list[Group]
    ) -> Iterator[Group]:
        """Yield groups of the public model's sequences until the text is long enough."""
        from sweeps.pate.generator import group_sizes, mean_text

        length = self.written_length(data.context)
        missing = self.text_tokens - sum(len(each) for group in done for each in group.sequences)
        rest = mean_text(
            lambda sequences: self.teachers_along(models, data.tokens, sequences),
            randomness,
            start=start_token(models.step),
            length=length,
            sizes=group_sizes(-(-max(0, missing) // length)),
            first=len(done),
            public=True,
        )
        for group in rest:
            yield replace(group, attempts=done[-1].attempts, answers=done[-1].answers)

    def text_columns(self, models: Models, data: Batches) -> dict[str, float]:
        """Return what was released and spent, and write the report into the store."""
        from sweeps.pate.journal import ReleaseJournal, packed
        from sweeps.pate.report import PrivacyReport

        journal = ReleaseJournal(models.store, models.step.id)
        groups = self.groups(models, data)
        settled = self._settled(journal, models, self.key(models, data))
        rule = self._rule_of(settled)
        report = PrivacyReport.of(
            self._ledger(rule, groups),
            teachers=self.teachers,
            shard_tokens=len(data.tokens) // self.teachers,
            mechanism=f"{self.release}, {self.votes} votes, {rule}",
            text_tokens=len(packed(groups, 0)),
            threshold=rule.threshold,
            sigma=rule.sigma,
            likely_tokens=settled.get("likely_tokens"),
            public_vocabulary=models.step.corpus.tokenizer is not None,
        )
        journal.finish(report.to_dict())
        return report.columns()

    def _ledger(self, rule: ReleaseRule, done: list[Group]) -> Ledger:
        """Return the ledger after the groups that are ``done``."""
        ledger = Ledger(budget=self.budget, cost=rule.cost, max_attempts=self.queries or math.inf)
        if done:
            ledger.attempts, ledger.answers = done[-1].attempts, done[-1].answers
        return ledger

    def _settled(self, journal: ReleaseJournal, models: Models, key: str) -> dict[str, Any]:
        """Return what was settled before the first query, and is now if nothing was."""
        return journal.settings(key, lambda: self._chosen(models, key))

    def _rule_of(self, settled: dict[str, Any]) -> ReleaseRule:
        return self._rule(settled["threshold"], settled["sigma"])

    def _chosen(self, models: Models, key: str) -> dict[str, float]:
        """Return threshold and noise, found on the public half where they are not given."""
        pairs = list(itertools.product(self.thresholds, self.sigmas))
        if len(pairs) == 1:
            return dict(zip(SETTLED, pairs[0], strict=False))
        step, likely = models.step, list[float]()
        text = planned_tokens(step.corpus, step.corpus_fingerprint).train_tokens_of("first")
        best = choose_release(
            with_likely_tokens(self.public_positions(models, text), likely),
            [self._rule(*pair) for pair in pairs],
            votes=self.votes,
            budget=self.budget,
            queries=self.queries or math.inf,
            fill=self.after_refusal == "public",
            text_tokens=self.text_tokens,
            randomness=OneTimeRandomness(f"{key} threshold"),
        )
        return dict(zip(SETTLED, (*pairs[best], statistics.geometric_mean(likely)), strict=True))

    def _rule(self, threshold: float, sigma: float) -> ReleaseRule:
        test = sigma if self.test_sigma is None else self.test_sigma
        return release_rule(
            self.release,
            teachers=self.teachers,
            threshold=threshold,
            sigma=sigma,
            test_sigma=test,
        )


hot_pate = {
    "source": {"use": "sweeps.methods.private_text:PrivateText", "epsilon": 8, "queries": 10000},
    "cross_entropy": 1.0,
}
"""Hard labels of coordinated teachers, for ``use: sweeps.methods.private_text:hot_pate``."""
