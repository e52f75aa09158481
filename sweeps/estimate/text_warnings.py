"""Text of a sweep: warnings about repeated, little held-out and share-alike text; methods that need more."""

from __future__ import annotations

from collections.abc import Iterable

from scaling.errors import InputError
from scaling.repeated_data import MANY_EPOCHS
from sweeps.dag.expand import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.splits import ERROR_TIMES_ROOT_TOKENS, TARGET_STANDARD_ERROR, standard_error
from sweeps.data.text_size import TextSize
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.spec import Sweep

SHARE_ALIKE = ("GPL", "CC BY-SA")
"""Prefixes of licenses with conditions for sharing the text."""


def check_text(sweep: Sweep, size: TextSize) -> None:
    """Refuse methods for which the students' text is too small.

    Raises:
        InputError: Naming the method and the field.
    """
    tokens = size.train_tokens_of("second" if sweep.corpus.halves else None)
    found = [
        f"{where}: {reason}"
        for where, method in sweep.methods_given()
        for part in parts_of(method)
        for reason in part.text_objections(tokens)
    ]
    if found:
        raise InputError("\n  ".join(found))


def epochs(step: Step, corpus: TokenizedCorpus, written: float | None = None) -> float:
    """Return the epochs of a run over its training text: the corpus, its half, or ``written`` tokens."""
    return step.tokens_of_its_text / (written or len(corpus.train_tokens_of(step.half)))


def text_warnings(corpus: TokenizedCorpus) -> list[str]:
    """Return warnings about a corpus before training on it."""
    found = []
    bound = {part.licence: part.name for part in corpus.parts if part.licence.startswith(SHARE_ALIKE)}
    if bound:
        texts = " and ".join(f"{name} under {licence}" for licence, name in bound.items())
        found.append(f"! {texts}: sharing the text is subject to that license")
    if corpus.boundaries == "position":
        found.append(
            f"! {corpus.source} has no end-of-text tokens, so pieces of it are held out by position, and a "
            "document may be on both sides of the split"
        )
    if (error := standard_error(corpus.heldout_tokens)) > TARGET_STANDARD_ERROR:
        enough = (ERROR_TIMES_ROOT_TOKENS / TARGET_STANDARD_ERROR) ** 2
        share = enough / (corpus.heldout_tokens + corpus.train_tokens)
        remedy = f"set corpus.heldout: {share:.2g}" if share < 0.5 else "use more text"
        found.append(
            f"! {corpus.heldout_tokens:,} held-out tokens leave a standard error of about {error:.2%} of a "
            f"loss; {TARGET_STANDARD_ERROR:.1%} needs {enough:,.0f}: {remedy}"
        )
    return found


def epoch_warnings(seen: Iterable[float]) -> list[str]:
    """Return warnings about repeated text, given the epochs of runs."""
    repeated = [number for number in seen if number > 1]
    if not repeated:
        return []
    many = sum(number > MANY_EPOCHS for number in repeated)
    text = f"{len(repeated)} runs see their text more than once, at most {max(repeated):.1f} times"
    if not many:
        return [f"{text}: up to {MANY_EPOCHS:g} is nearly as good as new text"]
    return [
        f"! {text}; {many} more than {MANY_EPOCHS:g} times, which biases a law: use more text or fewer tokens"
    ]
