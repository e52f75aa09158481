"""What should be known of a sweep's text: it is repeated, little of it is held out, or a licence binds it."""

from __future__ import annotations

from collections.abc import Iterable

from scaling.planner.warnings import REPEATED
from sweeps.dag.expand import Step
from sweeps.data import TokenisedCorpus
from sweeps.data.splits import LOSS_SPREAD, PRECISE, standard_error

BINDING = ("GPL", "CC BY-SA")
"""Beginnings of licences that bind whoever passes the text on."""


def epochs(step: Step, corpus: TokenisedCorpus) -> float:
    """How often a run sees its training text, or its half of it."""
    return step.tokens_of_its_text / len(corpus.train_tokens_of(step.half))


def of_text(corpus: TokenisedCorpus) -> list[str]:
    """What to know of a corpus before training on it."""
    found = []
    bound = {part.licence: part.name for part in corpus.parts if part.licence.startswith(BINDING)}
    if bound:
        texts = " and ".join(f"{name} under {licence}" for licence, name in bound.items())
        found.append(f"! {texts}: whoever passes the text on is bound by that")
    if (error := standard_error(corpus.heldout_tokens)) > PRECISE:
        enough = (LOSS_SPREAD / PRECISE) ** 2
        share = enough / (corpus.heldout_tokens + corpus.train_tokens)
        mend = f"corpus.heldout: {share:.2g} would do" if share < 0.5 else "use more text"
        found.append(
            f"! {corpus.heldout_tokens:,} held-out tokens leave a standard error of about {error:.2%} of a "
            f"loss; {PRECISE:.1%} takes {enough:,.0f}: {mend}"
        )
    return found


def of_repetition(seen: Iterable[float]) -> list[str]:
    """What the epochs of runs say of their law."""
    repeated = [number for number in seen if number > 1]
    if not repeated:
        return []
    worn = sum(number > REPEATED for number in repeated)
    text = f"{len(repeated)} runs see their text more than once, at most {max(repeated):.1f} times"
    if not worn:
        return [f"{text}: up to {REPEATED:g} is nearly as good as new text"]
    return [
        f"! {text}; {worn} more than {REPEATED:g} times, which bends a law: use more text or fewer tokens"
    ]


def repetition(steps: Iterable[Step], corpus: TokenisedCorpus) -> list[str]:
    """The same before they are run."""
    return of_repetition(epochs(step, corpus) for step in steps if step.kind.is_run)
