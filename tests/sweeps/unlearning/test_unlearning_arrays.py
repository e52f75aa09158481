"""Exact properties of the counterfactual teacher as arrays, of baselines, scores and attacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import xlogy
from torch.nn import functional as F

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.data.tokenizer import END_OF_TEXT_ID, train_tokenizer
from sweeps.distill.divergences import forward_kl
from sweeps.model.decoder import Decoder
from sweeps.unlearning.attacks import (
    IGNORED,
    Answers,
    answer_log_probs,
    first_distributions,
    log_probs_after,
    relearn,
    soft_prompt,
)
from sweeps.unlearning.counterfactual import Averaging, Rewriter
from sweeps.unlearning.encoding import TextEncoding
from sweeps.unlearning.mixture import (
    average,
    chance_of_none,
    chance_spread,
    jensen_shannon,
    kl,
    share_with_true,
)
from sweeps.unlearning.names import PersonName
from sweeps.unlearning.objectives import npo_loss, npo_weights
from sweeps.unlearning.renaming import (
    LEFT,
    move_mass,
    one_hot,
    penalize,
    rename_before_mentions,
    rename_elsewhere,
    speaks_of_substitute,
)
from sweeps.unlearning.scores import (
    confidently_wrong,
    distinct_ngrams,
    forget_quality,
    forget_score,
    model_utility,
    retain_score,
    truth_ratio,
)

TEXT = "Ada Lane was born in Kent. Ada plays the lute. Lane keeps a goat."
OTHERS = ("Joan Moor", "Tim Oakwood", "Eve Hill")


@pytest.fixture
def draws() -> np.random.Generator:
    return np.random.default_rng(5)


def dirichlet(draws: np.random.Generator, *shape: int, vocab: int = 30) -> np.ndarray:
    return draws.dirichlet(np.full(vocab, 0.3), shape)


def test_moved_mass_is_conserved_and_nothing_moves_without_any(draws) -> None:
    p = dirichlet(draws, 12)
    sources, present = np.array([3, 4, 9]), draws.integers(0, 30, 12)
    moved = rename_before_mentions(p, sources, present)
    np.testing.assert_allclose(moved.sum(1), 1, rtol=0, atol=1e-15 * 30)
    for row, token in enumerate(present):
        gone = [each for each in sources if each != token]
        assert (moved[row, gone] <= p[row, gone]).all()
        assert (moved[row, gone] <= LEFT * 1.001).all()
        expected = p[row, token] + np.maximum(p[row, gone] - LEFT, 0).sum()
        assert moved[row, token] == pytest.approx(expected, abs=1e-15)
    bare = p.copy()
    bare[:, sources] = 0
    bare /= bare.sum(1, keepdims=True)
    assert (rename_before_mentions(bare, sources, present) == bare).all()
    assert (move_mass(p, sources, np.repeat(sources[None], 12, 0)) == p).all()  # each token to itself


def test_elsewhere_each_token_is_exchanged_for_its_own(draws) -> None:
    p = dirichlet(draws, 5)
    moved = rename_elsewhere(p, np.array([1, 2]), np.array([7, 8]))
    np.testing.assert_allclose(
        moved[:, [7, 8]], p[:, [7, 8]] + np.maximum(p[:, [1, 2]] - LEFT, 0), atol=1e-15
    )
    same = rename_elsewhere(p, np.array([1, 2]), np.array([7, 7]))
    np.testing.assert_allclose(same.sum(1), 1, atol=1e-14)


def test_most_universes_must_speak_of_their_substitute() -> None:
    p = np.full((3, 2, 4), 0.25)
    p[0, :, :] = [0.05, 0.95, 0, 0]
    tokens = [np.array([0])] * 3
    assert speaks_of_substitute(p, tokens).tolist() == [True, True]  # two of three
    p[1, 1] = [0.1, 0.9, 0, 0]  # not more than a tenth
    assert speaks_of_substitute(p, tokens).tolist() == [True, False]


def test_the_mean_of_one_is_itself_and_order_does_not_matter(draws) -> None:
    p = dirichlet(draws, 6, 4)
    assert (average(p[:1]) == p[0]).all()
    np.testing.assert_allclose(average(p[draws.permutation(6)]), average(p), rtol=0, atol=1e-16)


def test_the_loss_is_kl_with_zeros_and_hard_labels(draws) -> None:
    p = dirichlet(draws, 8)
    p[:4, :20] = 0
    p /= p.sum(1, keepdims=True)
    p[5:] = one_hot(p[5:])
    q = dirichlet(draws, 8) + 1e-9
    q /= q.sum(1, keepdims=True)
    expected = (xlogy(p, p) - xlogy(p, q)).sum(1)
    np.testing.assert_allclose(kl(p, q), expected, rtol=0, atol=4e-15)
    log_p, log_q = torch.from_numpy(p).log(), torch.from_numpy(q).log()
    np.testing.assert_allclose(forward_kl(log_p, log_q).numpy(), expected, rtol=0, atol=4e-15)


def test_kl_to_the_mixture_and_the_mean_of_kls_differ_by_the_divergence_of_teachers(draws) -> None:
    p, q = dirichlet(draws, 7, 5), dirichlet(draws, 5) + 1e-6
    q /= q.sum(1, keepdims=True)
    np.testing.assert_allclose(kl(p, q).mean(0), kl(average(p), q) + jensen_shannon(p), rtol=1e-12)
    assert (jensen_shannon(p) >= 0).all()
    assert (jensen_shannon(p) <= math.log(7)).all()
    certain = np.eye(7, 30)[:, None]
    assert jensen_shannon(certain).item() == pytest.approx(math.log(7))
    logits = torch.from_numpy(np.log(q)).requires_grad_()
    teachers = torch.from_numpy(p)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss.sum(), logits)[0]

    log_q = logits.log_softmax(-1)
    mean = gradient(forward_kl(teachers.log(), log_q.expand_as(teachers)).mean(0))
    log_q = logits.log_softmax(-1)
    np.testing.assert_allclose(gradient(forward_kl(teachers.mean(0).log(), log_q)), mean, rtol=0, atol=1e-12)


def test_perfect_memory_concentrates_as_the_root_of_universes(draws) -> None:
    """Tabular oracle: an attribute uniform on K values, remembered perfectly."""
    K = 20
    for universes in (1, 5, 20):
        values = draws.integers(0, K, (40_000, universes))
        p_true = np.array([share_with_true(0, row) for row in values[:4000].tolist()])
        shares = (values == 0).mean(1)
        np.testing.assert_allclose(p_true, shares[:4000])
        assert shares.mean() == pytest.approx(1 / K, abs=0.004)
        assert shares.std() == pytest.approx(chance_spread(K, universes), rel=0.03)
        assert (shares == 0).mean() == pytest.approx(chance_of_none(K, universes), abs=0.01)
    assert [round(chance_of_none(20, n), 3) for n in (1, 5, 20)] == [0.95, 0.774, 0.358]


@pytest.fixture(scope="module")
def encoding() -> TextEncoding:
    texts = [TEXT, *(TEXT.replace("Ada", n.split()[0]).replace("Lane", n.split()[1]) for n in OTHERS)] * 20
    return TextEncoding(train_tokenizer(texts, 300), END_OF_TEXT_ID)


def averaging(encoding: TextEncoding, names: tuple[str, ...] = OTHERS, **options) -> Averaging:
    made = Rewriter(
        encoding=encoding, targets=(PersonName("Ada Lane"),), substitutes=(tuple(map(PersonName, names)),)
    )
    return Averaging(rewriter=made, **options)


def test_an_equivariant_model_is_a_fixed_point(encoding: TextEncoding) -> None:
    """Where renaming commutes with prediction, p-bar is the model itself: no loss and no gradient."""
    teacher = averaging(encoding)
    ids = list(encoding.encode(TEXT).ids)
    found = teacher.rewriter.rewrite(ids)
    assert found is not None
    vocab = encoding.tokenizer.get_vocab_size()

    def certain(tokens: tuple[int, ...], places: np.ndarray) -> np.ndarray:
        """A model that expects what comes next, but for a share that is spread."""
        p = np.full((len(places), vocab), 0.0)
        following = [tokens[place + 1] if place + 1 < len(tokens) else 0 for place in places]
        p[np.arange(len(places)), following] = 1
        return p

    p = np.stack([certain(v, at) for v, at in zip(found.versions, found.partners, strict=True)])
    own = certain(tuple(ids), found.kept)
    mean = teacher.teacher(found, p)
    np.testing.assert_allclose(mean.sum(1), 1, atol=1e-12)
    first = np.flatnonzero(~found.mentioned & (own.argmax(1) == ids[0]))
    rows = np.setdiff1d(np.arange(len(own)), first)
    np.testing.assert_allclose(mean[rows], own[rows], atol=4 * LEFT)


def test_rows_of_the_teacher_sum_to_one_and_names_are_the_originals(encoding: TextEncoding, draws) -> None:
    teacher = averaging(encoding)
    found = teacher.rewriter.rewrite(list(encoding.encode(TEXT).ids))
    assert found is not None
    p = dirichlet(draws, 3, len(found.kept), vocab=300)
    mean = teacher.teacher(found, p)
    np.testing.assert_allclose(mean.sum(1), 1, atol=1e-12)
    before = found.present >= 0
    assert (mean[before, found.present[before]] >= average(p)[before, found.present[before]]).all()
    plain = np.setdiff1d(np.arange(len(p[0])), np.flatnonzero(before))
    np.testing.assert_allclose(mean[plain], average(p)[plain], atol=1e-12)  # nobody else is spoken of


def test_whp_is_one_universe_with_hard_labels(encoding: TextEncoding, draws) -> None:
    soft, hard = averaging(encoding, OTHERS[:1]), averaging(encoding, OTHERS[:1], hard=True, name_penalty=5.0)
    found = soft.rewriter.rewrite(list(encoding.encode(TEXT).ids))
    assert found is not None
    p = dirichlet(draws, 1, len(found.kept), vocab=300)
    labels = hard.teacher(found, p)
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert (labels.sum(1) == 1).all()
    names = np.unique(encoding.name_tokens(PersonName(OTHERS[0]), 3))
    loud = np.full_like(p, 1e-9)
    loud[0, :, names[0]], loud[0, :, 250] = 0.9, 0.1
    spoken = np.flatnonzero(found.mentioned & (found.present < 0))
    penalized = Averaging(
        rewriter=Rewriter(
            encoding=encoding,
            targets=soft.rewriter.targets,
            substitutes=soft.rewriter.substitutes,
            rename_back=False,
        ),
        hard=True,
        name_penalty=5.0,
    ).teacher(found, loud / loud.sum(-1, keepdims=True))
    assert (penalized[spoken].argmax(1) == 250).all()
    np.testing.assert_allclose(
        penalize(p[0], names, 5.0), F.softmax(torch.from_numpy(np.log(p[0])) - 5 * torch.isin(
            torch.arange(300), torch.from_numpy(names)).double(), -1).numpy(), rtol=1e-10,
    )  # fmt: skip


def test_npo_weights_give_its_gradient(draws) -> None:
    student = torch.tensor(draws.normal(30, 5, 6)).requires_grad_()
    reference = torch.tensor(draws.normal(30, 5, 6))
    for beta in (0.01, 0.1, 2.0):
        (gradient,) = torch.autograd.grad(npo_loss(student, reference, beta).sum(), student)
        weights = npo_weights((student - reference).detach(), beta)
        torch.testing.assert_close(gradient, -weights)
    assert npo_weights(torch.zeros(1), 0.1).item() == pytest.approx(1)
    assert npo_weights(torch.tensor([1e3]), 0.1).item() == pytest.approx(0, abs=1e-12)


def test_scores_are_tofus(draws) -> None:
    assert truth_ratio(math.log(0.5), [math.log(0.1), math.log(0.3)]) == pytest.approx(0.4)
    assert forget_score([0.5, 2.0, 1.0]) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert retain_score([0.25, 3.0]) == pytest.approx(0.375)
    assert model_utility([0.5, 1.0]) == pytest.approx(2 / 3)
    assert model_utility([0.5, 0.0]) == 0
    same, other = draws.normal(1, 0.2, (2, 60))
    assert forget_quality(same, other) > 0.01
    assert forget_quality(same, other + 1) < 1e-6
    assert forget_quality(same, same) == 1
    assert distinct_ngrams([[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]]) == pytest.approx(0.75)
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    assert confidently_wrong(p, np.array([0, 0, 1])) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="needs wrong answers"):
        truth_ratio(0.0, [])


@pytest.fixture(scope="module")
def model() -> Decoder:
    made = Decoder(
        ModelShape(vocab=40, width=16, layers=1, context=32, heads=1, kv_heads=1, head_dim=16, ffn=32)
    )
    made.initialize(3)
    return made.eval().requires_grad_(False)


def test_answers_are_scored_after_their_prompts(model: Decoder) -> None:
    pairs = [([5, 6, 7], [8]), ([5], [9, 10, 11])]
    answers = Answers.of(pairs, 0)
    assert answers.counts.tolist() == [1, 3]
    log_q = model(torch.tensor([[0, 5, 9, 10]])).log_softmax(-1)[0]
    expected = (log_q[1, 9] + log_q[2, 10] + log_q[3, 11]) / 3
    torch.testing.assert_close(answer_log_probs(model, answers)[1], expected)
    p, true = first_distributions(model, answers)
    assert true.tolist() == [8, 9]
    torch.testing.assert_close(p[1], log_q[1].exp())
    assert (answers.labels[0] != IGNORED).sum() == 1


def test_attacks_teach_and_leave_the_model_as_it_was(model: Decoder) -> None:
    answers = Answers.of([([5, 6, n], [20 + n]) for n in range(4)], 0)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    own = answer_log_probs(model, answers).mean().item()
    again = relearn(model, answers, 20, 0.01)
    assert answer_log_probs(again, answers).mean().item() > own + 0.5
    first, second = (
        soft_prompt(model, answers, length=6, steps=15, restarts=2, learning_rate=0.05) for _ in "ab"
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert max(log_probs_after(model, each, answers).mean().item() for each in first) > own
    assert all((each == before[name]).all() for name, each in model.state_dict().items())
    words = model.model.embed_tokens.weight.detach()[[1, 2]]
    plain = Answers.of([([1, 2, 0, 5], [9])], 0)
    spoken = torch.cat([torch.tensor([[1, 2]]), torch.tensor([[0, 5]])], 1)
    expected = model(spoken).log_softmax(-1)[0, -1, 9]
    found = log_probs_after(model, words, Answers.of([([5], [9])], 0))
    torch.testing.assert_close(found[0], expected)  # vectors of tokens are these tokens
    assert plain.tokens.shape[1] == 5
