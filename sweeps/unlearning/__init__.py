"""Targeted unlearning: a model forgets persons as if their documents were about others.

The method is causal "Who's Harry Potter" (Liu et al. 2024, arXiv 2407.16997): a teacher's distributions on
texts in which others take a person's place, renamed back and averaged. With it come synthetic persons with
known attributes, readers of TOFU's and WPU's files, scores, attacks and objectives of baselines. Strings,
token sequences and arrays; attacks take a PyTorch model. Imports no other room.
"""

from sweeps.unlearning.alignment import align, common_places
from sweeps.unlearning.blocks import BlockRewriter, RewrittenBlock
from sweeps.unlearning.counterfactual import Averaging, Counterfactual, Rewriter, choose_substitutes
from sweeps.unlearning.encoding import Encoded, TextEncoding
from sweeps.unlearning.facts import (
    Fact,
    read_documents,
    read_facts,
    read_substitutes,
    write_corpus,
)
from sweeps.unlearning.names import Mention, PersonName, Substituted, find_mentions, substitute
from sweeps.unlearning.persons import Person, SyntheticPersons
from sweeps.unlearning.scores import (
    confidently_wrong,
    distinct_ngrams,
    forget_quality,
    forget_score,
    model_utility,
    retain_score,
    truth_ratio,
)

__all__ = [
    "Averaging",
    "BlockRewriter",
    "Counterfactual",
    "Encoded",
    "Fact",
    "Mention",
    "Person",
    "PersonName",
    "Rewriter",
    "RewrittenBlock",
    "Substituted",
    "SyntheticPersons",
    "TextEncoding",
    "align",
    "choose_substitutes",
    "common_places",
    "confidently_wrong",
    "distinct_ngrams",
    "find_mentions",
    "forget_quality",
    "forget_score",
    "model_utility",
    "read_documents",
    "read_facts",
    "read_substitutes",
    "retain_score",
    "substitute",
    "truth_ratio",
    "write_corpus",
]
