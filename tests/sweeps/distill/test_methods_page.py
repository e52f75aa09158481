"""Each difference that the methods' page states is one of the code: row by row, and with the code's numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from named_divergences import DIVERGENCES, distillation
from test_sequences import Table
from torch import Tensor

from sweeps.distill.divergences import forward_kl
from sweeps.distill.generation.on_policy import WATCHED
from sweeps.distill.generation.policy_gradient import advantages, returns
from sweeps.distill.generation.sampling import GeneratedText, uniform_numbers, write
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Credit, Replay, Source, Taid

PAGE = (Path(__file__).parents[3] / "docs" / "methods.md").read_text()
P, Q = (torch.tensor([row], dtype=torch.float64) for row in ([0.6, 0.3, 0.1], [0.2, 0.3, 0.5]))
LABEL = torch.tensor([0])


def rows() -> dict[str, tuple[str, str]]:
    """Differences that the page lists: method to the code here and there."""
    section = PAGE.split("## Differences from the published code\n")[1].split("\n## ")[0]
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in section.splitlines() if line[:2] == "| "]
    return {method: (here, there) for method, here, there in cells[1:]}


def value(name: str, **own: float) -> float:
    return distillation(name, P.log(), Q.log(), LABEL, **own).item()


def kl(p: Tensor, q: Tensor) -> float:
    return float((p * (p / q).log()).sum())


def beta_is_the_teacher_s(here: str, there: str) -> None:
    m = 0.9 * P + 0.1 * Q
    assert value("jensen-shannon", beta=0.9) == pytest.approx(0.9 * kl(P, m) + 0.1 * kl(Q, m))
    assert "teacher's weight" in here
    assert "0.9 there is 0.1 here" in there


def beta_has_no_ends(here: str, there: str) -> None:
    assert "0 or 1 is rejected" in here
    for beta in (0.0, 1.0):
        with pytest.raises(ValueError, match="beta"):
            Method(divergence="jensen-shannon", beta=beta)


def gold_weighs_the_label(here: str, there: str) -> None:
    p, q = P[0, 0], Q[0, 0]
    label = float(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    rest = kl(P[:, 1:] / (1 - p), Q[:, 1:] / (1 - q))
    for gold, others in ((2.0, 0.0), (0.0, 3.0), (1.0, 8.0)):
        assert value("decoupled-kl", gold=gold, others=others) == pytest.approx(gold * label + others * rest)
    assert here.startswith("`gold` weighs the label")
    assert r"$\alpha$ and $\beta$ of Zhao et al., 1 and 8 by default in their code" in there


def pretraining_is_of_the_data(here: str, there: str) -> None:
    with pytest.raises(ValueError, match="pretraining: it goes beside text of the student"):
        Method(divergence="skew-kl", pretraining=1.0)
    assert Method(pretraining=1.0, source=Source(by="student", prompt_tokens=1)).pretraining == 1.0
    assert Method().pretraining == 0.0
    assert "`pretraining` adds the data's cross-entropy" in here


def looks_are_twenty(here: str, there: str) -> None:
    assert here.startswith(f"{Replay().looks} looks over a run at {WATCHED} blocks")
    assert "`rise`" in here
    assert "`tolerance`" in here


def written(rewards: Tensor) -> GeneratedText:
    """Text whose tokens have these rewards, ln p/q."""
    blocks = torch.zeros(len(rewards), rewards.shape[1] + 1, dtype=torch.long)
    by = torch.stack([torch.zeros_like(rewards), rewards])
    return GeneratedText(blocks, by, by[0], -rewards)


@pytest.mark.parametrize("rewards", ["sampled", "expected"])
def test_rewards_are_as_they_are(rewards: str) -> None:
    """Linear to far beyond 100, and of each text without regard to the others of its batch."""
    rules = Credit(rewards=rewards, discount=1.0, normalise=False)  # type: ignore[arg-type]
    given = torch.tensor([[1.0, -2.0, 3.0], [40.0, 500.0, -7.0]], dtype=torch.float64)
    found = advantages(written(given), rules)
    torch.testing.assert_close(found, returns(given, normalise=False))
    torch.testing.assert_close(advantages(written(1000 * given), rules), 1000 * found)
    torch.testing.assert_close(advantages(written(given[:1]), rules), found[:1])


def rewards_are_as_they_are(here: str, there: str) -> None:
    assert here.startswith("as they are: no whitening over the batch, no scaling")
    assert "no clipping at 100" in here


def equal_rewards_have_equal_returns(here: str, there: str) -> None:
    found = returns(torch.full((1, 9), 0.7, dtype=torch.float64), discount=0.5)[0, :-1]
    torch.testing.assert_close(found, torch.full_like(found, 0.7))
    assert "*discounted* count" in here
    assert not Credit().include_current  # theirs: "include_current"
    assert "`include_current`" in there


def weights_are_of_one_token(here: str, there: str) -> None:
    alpha, student, teacher = 0.2, Table(1), Table(2)
    prompts = torch.zeros(40, 1, dtype=torch.long)
    found = write([student, teacher], prompts, uniform_numbers(40, 3, 0), shares=(1 - alpha, alpha))
    ratio, drawn = found.by_writer[0] - found.drawn, found.by_writer
    mixed = torch.logaddexp(drawn[0] + math.log1p(-alpha), drawn[1] + math.log(alpha))
    torch.testing.assert_close(found.drawn, mixed)  # of each token alone: no product over those before
    assert ratio.shape == (40, 3)
    assert 1.0 < float(ratio.exp().max()) <= (1 + 1e-6) / (1 - alpha)
    assert r"at most $1/(1-\alpha)$" in here


def pretraining_is_cross_entropy(here: str, there: str) -> None:
    assert here == "the data's cross-entropy"


def pace_watches_the_loss(here: str, there: str) -> None:
    assert here.startswith("watches the whole training loss")


def pace_is_that_of_16_000_steps(here: str, there: str) -> None:
    assert f"{Taid().pace:g} by default" in here
    rate, steps = re.findall(r"[\d.,]*\d(?:e-\d+)?", there.replace(" 8 over", ""))
    assert float(rate) * float(steps.replace(",", "")) == pytest.approx(Taid().pace)


CHECKS: dict[str, Callable[[str, str], None]] = {
    "Jensen-Shannon (GKD, f-DISTILL)": beta_is_the_teacher_s,
    "Jensen-Shannon at the ends": beta_has_no_ends,
    "DKD, DNKD": gold_weighs_the_label,
    "DistiLLM": pretraining_is_of_the_data,
    "DistiLLM's share": looks_are_twenty,
    "MiniLLM's rewards": rewards_are_as_they_are,
    "MiniLLM's normalization": equal_rewards_have_equal_returns,
    "MiniLLM's importance weights": weights_are_of_one_token,
    "MiniLLM's `pretraining`": pretraining_is_cross_entropy,
    "TAID's pace": pace_watches_the_loss,
    "TAID's rate": pace_is_that_of_16_000_steps,
}


def test_every_difference_is_checked() -> None:
    assert rows().keys() == CHECKS.keys()


@pytest.mark.parametrize("method", CHECKS)
def test_the_code_differs_as_the_page_says(method: str) -> None:
    CHECKS[method](*rows()[method])


def test_a_teacher_may_exclude_tokens_unless_the_divergence_needs_them() -> None:
    """Finite but for reverse KL, which is rejected."""
    assert "every divergence but reverse KL is finite" in PAGE
    assert {name for name, each in DIVERGENCES.items() if each.needs_every_token} == {"reverse-kl"}
    excluded = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64).log()
    assert forward_kl(excluded, Q.log()).isfinite().all()


def test_every_divergence_that_ships_is_on_the_page() -> None:
    table = PAGE.split("## Divergences\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.M)) - {"divergence"} == set(DIVERGENCES)
