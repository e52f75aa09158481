"""Metrics of unlearning: what a student still knows of the forgotten and of all else, and two attacks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from scaling.errors import InputError
from sweeps.methods.forgotten import Forgotten, encoding_of
from sweeps.spec.fields import Count, Number
from sweeps.spec.method.interfaces import Metric
from sweeps.unlearning.facts import Fact, read_facts
from sweeps.unlearning.persons import SyntheticPersons

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import Evaluation
    from sweeps.unlearning.attacks import Answers

SYNTHETIC = "synthetic"
FORGET, HARD, GENERAL = "forget", "hard-retain", "general-retain"
WRITTEN_TOKENS = 32
"""Tokens that a student writes after each prompt, for the share of different 4-grams."""


class Knowledge(Forgotten, Metric):
    """Probability of true answers, truth ratios, confidence in wrong ones, and what attacks bring back.

    Columns: ``forget_p_true``, ``hard_retain_p_true`` (other things in the documents of the forgotten) and
    ``general_retain_p_true`` (other persons), means of the probability a token; ``forget_entropy`` of the
    answer's first token, nats; ``forget_confidently_wrong``, the share of facts with more than one half on
    one wrong token; ``forget_truth_score`` and ``retain_truth_score``; ``truth_ratio_0``, ... of each
    forgotten fact; ``distinct_4grams`` of greedy text after prompts on the forgotten; ``retain_loss`` and
    ``forget_loss``, nats/token on held-out documents without and with the forgotten; ``relearned_5``, ...
    after so many gradient steps on half of the facts, and ``soft_prompt``, the best of several: the
    probability of the true answers to the other half.
    """

    version: ClassVar[str | None] = "1"
    facts: str = SYNTHETIC
    """File of facts (:mod:`sweeps.unlearning.facts`), or ``synthetic``: those of the corpus ``persons``."""
    others: tuple[str, ...] = ()
    """Persons of ``synthetic`` whose facts are general knowledge to retain."""
    relearning_steps: tuple[Annotated[Count, Field(ge=1)], ...] = (5, 20)
    """Gradient steps of the relearning attack."""
    relearning_rate: Number = Field(0.001, gt=0)
    """Learning rate of that attack, of Adam."""
    soft_tokens: Count = 20
    """Vectors of the soft prompt; 0 for no such attack."""
    soft_steps: Count = 20
    """Steps that it is trained, at a learning rate of 0.01."""
    soft_restarts: Annotated[Count, Field(ge=1)] = 3
    """Random beginnings; the most successful counts."""

    def objections(self, method: Method) -> Iterator[str]:
        yield from self.name_objections()
        try:
            if not any(fact.group == FORGET for fact in self.all_facts()):
                yield "facts: none is about the forgotten; give rows of the group forget"
        except InputError as error:
            yield str(error)

    def all_facts(self) -> tuple[Fact, ...]:
        """Return all facts.

        Raises:
            InputError: If a file cannot be read, or a synthetic person does not exist.
        """
        if self.facts != SYNTHETIC:
            return tuple(read_facts(self.facts))
        world = SyntheticPersons.drawn()
        known = {person.name.full for person in world.people}
        if unknown := [name for name in (*self.forget, *self.others) if name not in known]:
            raise InputError(f"forget: {unknown[0]!r} is none of the synthetic persons; give a file of facts")
        forgotten, others = list(self.forget), list(self.others)
        return (
            *world.facts(forgotten, FORGET),
            *world.place_facts(forgotten, HARD),
            *world.facts(others, GENERAL),
        )

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        from sweeps.distill.metrics import in_float32

        student = evaluation.student
        with in_float32(student):
            found = self._knowledge(evaluation)
            found |= self._attacks(evaluation)
            found |= self._losses(evaluation)
        return found

    def _knowledge(self, evaluation: Evaluation) -> dict[str, float]:
        import numpy as np
        import torch

        from sweeps.unlearning.attacks import first_distributions
        from sweeps.unlearning.scores import confidently_wrong, forget_score, retain_score

        found: dict[str, float] = {}
        with torch.no_grad():
            for group in (FORGET, HARD, GENERAL):
                if facts := self._of(group):
                    name = group.replace("-", "_")
                    found[f"{name}_p_true"] = self._p_true(evaluation, facts)
        forget = self._of(FORGET)
        p, true = first_distributions(evaluation.student, self._answers(evaluation, forget))
        found["forget_entropy"] = float(torch.special.entr(p.double()).sum(-1).mean())
        found["forget_confidently_wrong"] = confidently_wrong(p.cpu().numpy(), true.cpu().numpy())
        if all(fact.wrong for fact in forget):
            ratios = self._truth_ratios(evaluation, forget)
            found["forget_truth_score"] = forget_score(ratios)
            found |= {f"truth_ratio_{number}": float(ratio) for number, ratio in enumerate(ratios)}
        retained = [fact for group in (HARD, GENERAL) for fact in self._of(group) if fact.wrong]
        if retained:
            found["retain_truth_score"] = retain_score(self._truth_ratios(evaluation, retained))
        found["distinct_4grams"] = self._distinct(evaluation, forget)
        assert all(np.isfinite(value) for value in found.values())
        return found

    def _attacks(self, evaluation: Evaluation) -> dict[str, float]:
        import torch

        from sweeps.unlearning.attacks import answer_log_probs, log_probs_after, relearn, soft_prompt

        facts = self._of(FORGET)
        known = self._answers(evaluation, facts[::2])
        asked = self._answers(evaluation, facts[1::2] or facts)
        found = {}
        for steps in self.relearning_steps:
            again = relearn(evaluation.student, known, steps, self.relearning_rate)
            with torch.no_grad():
                found[f"relearned_{steps}"] = float(answer_log_probs(again, asked).exp().mean())
        if self.soft_tokens and self._fits(evaluation, known, asked):
            prompts = soft_prompt(
                evaluation.student,
                known,
                length=self.soft_tokens,
                steps=self.soft_steps,
                restarts=self.soft_restarts,
            )
            with torch.no_grad():
                means = [
                    float(log_probs_after(evaluation.student, each, asked).exp().mean()) for each in prompts
                ]
            found["soft_prompt"] = max(means)
        return found

    def _fits(self, evaluation: Evaluation, *answers: Answers) -> bool:
        return self.soft_tokens + max(each.tokens.shape[1] for each in answers) <= evaluation.context

    def _losses(self, evaluation: Evaluation) -> dict[str, float]:
        from sweeps.model.heldout import heldout_loss

        step = evaluation.models.step
        texts = _heldout_streams(
            step.corpus_fingerprint,
            self.targets,
            evaluation.heldout,
            encoding_of(step).end_of_text,
            evaluation,
        )
        return {
            f"{name}_loss": heldout_loss(evaluation.student, text, context=evaluation.context).loss
            for name, text in zip(("forget", "retain"), texts, strict=True)
            if len(text) > evaluation.context
        }

    def _of(self, group: str) -> list[Fact]:
        return [fact for fact in _facts(self) if fact.group == group]

    def _answers(self, evaluation: Evaluation, facts: list[Fact]) -> Answers:
        return self._batch(evaluation, [(fact.prompt, fact.answer) for fact in facts])

    def _batch(self, evaluation: Evaluation, pairs: list[tuple[str, str]]) -> Answers:
        from sweeps.unlearning.attacks import Answers

        encoding = encoding_of(evaluation.models.step)
        encoded = [(encoding.encode(prompt).ids, encoding.encode(answer).ids) for prompt, answer in pairs]
        longest = max(len(prompt) + len(answer) for prompt, answer in encoded)
        if longest > evaluation.context:
            raise InputError(
                f"facts: a question and its answer are {longest} tokens, and models read "
                f"{evaluation.context}; shorten them, or raise corpus.context"
            )
        return Answers.of(encoded, encoding.end_of_text)

    def _p_true(self, evaluation: Evaluation, facts: list[Fact]) -> float:
        from sweeps.unlearning.attacks import answer_log_probs

        return float(answer_log_probs(evaluation.student, self._answers(evaluation, facts)).exp().mean())

    def _truth_ratios(self, evaluation: Evaluation, facts: list[Fact]) -> list[float]:
        import torch

        from sweeps.unlearning.attacks import answer_log_probs
        from sweeps.unlearning.scores import truth_ratio

        ratios = []
        for fact in facts:
            answers = [fact.other_answer, *fact.wrong]
            with torch.no_grad():
                batch = self._batch(evaluation, [(fact.other_prompt, each) for each in answers])
                true, *wrong = answer_log_probs(evaluation.student, batch).double().tolist()
            ratios.append(truth_ratio(true, wrong))
        return ratios

    def _distinct(self, evaluation: Evaluation, facts: list[Fact]) -> float:
        from sweeps.unlearning.scores import distinct_ngrams

        encoding = encoding_of(evaluation.models.step)
        texts = [
            _greedy(
                evaluation.student,
                [encoding.end_of_text, *encoding.encode(fact.prompt).ids],
                evaluation.context,
            )
            for fact in facts
        ]
        return distinct_ngrams(texts)


@lru_cache(maxsize=16)
def _facts(metric: Knowledge) -> tuple[Fact, ...]:
    return metric.all_facts()


def _greedy(student: nn.Module, prompt: list[int], context: int) -> list[int]:
    """Return the likeliest tokens after ``prompt``, one after the other."""
    import torch

    tokens: Tensor = torch.tensor([prompt], device=next(student.parameters()).device)
    with torch.no_grad():
        for _ in range(min(WRITTEN_TOKENS, context - len(prompt))):
            tokens = torch.cat([tokens, student(tokens)[:, -1:].argmax(-1)], 1)
    return tokens[0, len(prompt) :].tolist()


_STREAMS: dict[tuple[object, ...], tuple[NDArray[np.integer], NDArray[np.integer]]] = {}


def _heldout_streams(
    fingerprint: str,
    targets: tuple[object, ...],
    heldout: NDArray[np.integer],
    end: int,
    evaluation: Evaluation,
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return held-out documents with and without the forgotten, each as a stream; remembered."""
    import numpy as np

    from sweeps.unlearning.names import PersonName, find_mentions

    if (key := (fingerprint, targets)) not in _STREAMS:
        encoding = encoding_of(evaluation.models.step)
        names = [each for each in targets if isinstance(each, PersonName)]
        pieces = np.split(np.asarray(heldout), np.flatnonzero(heldout == end) + 1)
        mentioned = [bool(find_mentions(encoding.decode(piece.tolist()), names)) for piece in pieces]
        first = np.array([end], heldout.dtype)
        _STREAMS[key] = (
            np.concatenate([first, *(piece for piece, own in zip(pieces, mentioned, strict=True) if own)]),
            np.concatenate(
                [first, *(piece for piece, own in zip(pieces, mentioned, strict=True) if not own)]
            ),
        )
    return _STREAMS[key]
