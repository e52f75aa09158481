"""Scores of knowledge as TOFU defines them (Maini et al. 2024, arXiv 2401.06121), and of a text's quality."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import harmonic_mean

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.unlearning.renaming import Floats


def truth_ratio(true: float, wrong: Sequence[float]) -> float:
    """Return mean exp(l_wrong) / exp(l_true) of mean log-probabilities a token; above 1 truth is unlikely.

    Args:
        true: Mean log-probability of the paraphrased true answer's tokens.
        wrong: Those of wrong answers.

    Raises:
        InputError: If there is no wrong answer.
    """
    if not len(wrong):
        raise InputError("facts: a truth ratio needs wrong answers; add perturbed_answer, or wrong")
    return float(np.mean(np.exp(np.asarray(wrong) - true)))


def forget_score(ratios: Sequence[float]) -> float:
    """Return mean min(r, 1/r), largest where truth and falsehood are equally likely."""
    r = np.asarray(ratios, np.float64)
    return float(np.minimum(r, 1 / r).mean())


def retain_score(ratios: Sequence[float]) -> float:
    """Return mean max(0, 1 - r)."""
    return float(np.maximum(0, 1 - np.asarray(ratios, np.float64)).mean())


def forget_quality(unlearned: Sequence[float], retain_only: Sequence[float]) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test between truth ratios of both models.

    Small values say that the unlearned model can be told from one that never saw the facts.
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(unlearned, retain_only).pvalue)


def model_utility(scores: Sequence[float]) -> float:
    """Return the harmonic mean of scores in [0, 1]; 0 if one is."""
    return harmonic_mean(scores) if min(scores) > 0 else 0.0


def distinct_ngrams(texts: Sequence[Sequence[Hashable]], n: int = 4) -> float:
    """Return the share of ``n``-grams within a text that are different, a mean over texts.

    >>> distinct_ngrams([[1, 2, 1, 2, 1, 2]], n=2)
    0.4
    """
    shares = [
        len({tuple(text[at : at + n]) for at in range(len(text) - n + 1)}) / (len(text) - n + 1)
        for text in texts
        if len(text) >= n
    ]
    return float(np.mean(shares)) if shares else 1.0


def confidently_wrong(p: Floats, true: NDArray[np.int64], threshold: float = 0.5) -> float:
    """Return the share of rows whose likeliest token is not ``true`` and has more than ``threshold``.

    Args:
        p: Distributions of the answer's first token, ``(facts, vocab)``.
        true: Its token, ``(facts,)``.
        threshold: Probability above which an answer counts as confident.
    """
    return float(((p.argmax(1) != true) & (p.max(1) > threshold)).mean())
