"""Plans of private text: arithmetic of the law, verdicts, refusals, and files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling import PrivateTextLaw, plan_private
from scaling.calibration.provenance import Provenance
from scaling.errors import InputError
from scaling.private.accounting import epsilon_of, rho_of

DRAWS = 400


def drawn(values: dict[str, float], sd: float) -> dict[str, np.ndarray]:
    """Draws around values, whose logarithms scatter by ``sd``."""
    rng = np.random.default_rng(len(values))
    return {name: value * np.exp(sd * rng.standard_normal(DRAWS)) for name, value in values.items()}


def law(sd: float = 0.0, scatter: float = 0.0, **changes: Any) -> PrivateTextLaw:
    """A law of two ways: 1,000 teachers release 4,000 and 250 tokens at rho = 1."""
    shared = {"A": 40.0, "alpha": 0.5, "beta": 0.5, "E_public": 5.0}
    hot = {"c": 4000.0, "u": 2.0, "w": 1.0, "E": 4.7, "B": 6.0}
    cold = {"c": 250.0, "u": 2.0, "w": 1.0, "E": 4.9, "B": 3.0}
    best = {"hot": hot, "cold": cold, "shared": shared}
    made = PrivateTextLaw(
        name="made",
        coefficients=best,
        draws={way: drawn(values, sd) for way, values in best.items()},
        released_sd={"hot": scatter, "cold": scatter},
        loss_sd=scatter / 10,
        region={
            "teachers": (300, 1000),
            "rho": (0.1, 4.0),
            "released_tokens": (50, 2e4),
            "student_params": (4e3, 2.2e4),
        },
        teachers_0=1000,
        rho_0=1.0,
        private_tokens=750_000,
        student_tokens=65_536,
        delta=1e-5,
        mechanism="confident-gnmax",
        provenance=Provenance(source="made up", date="2026-11-30", warnings=("made up",)),
    )
    return replace(made, **changes)


def test_the_answer_is_the_laws_arithmetic() -> None:
    answer = plan_private(500, 8, law=law(), student_params="7k")
    rho = rho_of(8, 1e-5)
    hot, cold = answer.ways
    assert answer.rho == rho
    assert epsilon_of(answer.rho, 1e-5) == pytest.approx(8)
    assert [hot.name, cold.name] == ["hot", "cold"]
    assert hot.released.value == pytest.approx(4000 * 0.25 * rho)
    assert cold.released.value == pytest.approx(250 * 0.25 * rho)
    loss = 4.7 + 40 / math.sqrt(7000) + 6 / math.sqrt(1000 * rho)
    assert hot.loss.value == pytest.approx(loss)
    assert answer.public_loss.value == pytest.approx(5 + 40 / math.sqrt(7000))
    assert hot.gain.value == pytest.approx(answer.public_loss.value - loss)
    assert hot.loss.low == pytest.approx(hot.loss.high)  # no draws scatter, no run does
    assert (hot.probability, hot.verdict) == (1.0, "private text pays")
    assert (cold.probability, cold.verdict) == (0.0, "train on public text alone")


def test_text_that_does_not_pay_is_said_so() -> None:
    answer = plan_private(500, 0.5, law=law())
    assert answer.student_chosen
    assert answer.student_params == 2.2e4
    assert answer.verdict.startswith("Train a 22K student on public text alone: about ")
    assert "above public text alone (P = 0.00)" in answer.verdict


def test_uncertainty_of_coefficients_releases_and_runs_widens_intervals() -> None:
    widths = []
    for sd, scatter in ((0.0, 0.0), (0.02, 0.0), (0.02, 0.5)):
        way = plan_private(1000, 4, law=law(sd, scatter)).ways[0]
        widths.append((way.released.high - way.released.low, way.loss.high - way.loss.low))
    assert widths[0][0] == pytest.approx(0)
    assert widths[0][1] == pytest.approx(0)
    assert widths[0] < widths[1] < widths[2]
    assert widths[1][1] < widths[2][1]


def test_more_teachers_and_budget_release_more_and_smaller_delta_less() -> None:
    def released(n: int, epsilon: float, delta: float = 1e-5) -> float:
        return plan_private(n, epsilon, delta=delta, law=law()).ways[0].released.value

    assert released(1000, 4) == pytest.approx(4 * released(500, 4))
    assert released(1000, 8) > released(1000, 4) > released(1000, 4, 1e-8)


def test_the_promise_is_stated_in_words_and_in_json() -> None:
    answer = plan_private(1000, 4, delta=1e-6, law=law(0.01, 0.1))
    said = " ".join(str(answer).split())
    for words in (
        "(4, 1e-06)-differential privacy",
        "one of 1,000 shards, each 0.1 % of the private text",
        "one shard is replaced by any other of its length",
        "mechanism: confident-gnmax",
        "research-grade",
        "the runs had delta = 1e-05",
        "! made up",
    ):
        assert words in said
    content = json.loads(json.dumps(answer.to_dict()))
    assert content["unit"].startswith("one of 1,000 shards")
    assert content["delta"] == 1e-6
    assert {"neighbors", "mechanism", "accountant", "caveats", "warnings", "public_loss"} <= content.keys()
    assert content["ways"][0]["released"].keys() == {"value", "low", "high"}
    assert content["verdict"] == content["ways"][0]["verdict"]
    assert list(answer.to_frame()["way"]) == [way.name for way in answer.ways]
    assert "differential privacy" in answer._repr_html_()


def test_far_outside_the_runs_there_is_no_verdict_but_released_tokens() -> None:
    answer = plan_private(1000, 4, student_params="300M", law=law())
    assert answer.best.verdict == "no answer, too far outside the fitted runs"
    assert "student params 14,000x; the budget releases about 1.19K tokens" in answer.verdict
    assert answer.best.released.value > 0
    near = plan_private(10_000, 4, law=law())
    assert any("extrapolated beyond the fitted runs: teachers 10x" in line for line in near.warnings)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"teachers": 1}, "teachers: 1 shard makes no ensemble"),
        ({"teachers": "1k"}, "write all digits"),
        ({"teachers": 10.5}, "must be a whole number"),
        ({"epsilon": 0}, "epsilon: 0 allows no release"),
        ({"epsilon": "-1"}, "epsilon: -1 allows no release"),
        ({"epsilon": math.inf}, "epsilon: an infinite budget promises nothing"),
        ({"epsilon": "infinite"}, "epsilon: an infinite budget promises nothing"),
        ({"epsilon": math.nan}, "epsilon: must be finite"),
        ({"epsilon": "much"}, "epsilon: cannot read 'much'"),
        ({"delta": 0}, "delta: 0 is no probability"),
        ({"delta": 0.01}, "delta: 0.01 is above 1/n = 0.001 for 1,000 teachers"),
        ({"student_params": "-3"}, "student_params: must be positive"),
        ({"law": "nowhere.json"}, "nowhere.json: no law of private text: .* those that ship: "),
    ],
)
def test_what_promises_nothing_is_refused(options: dict[str, Any], reason: str) -> None:
    asked = {"teachers": 1000, "epsilon": 4, "law": law(), **options}
    with pytest.raises(InputError, match=reason):
        plan_private(asked.pop("teachers"), asked.pop("epsilon"), **asked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "distlaw-calibration"}, 'not a law of private text, whose "format" is'),
        ({"format_version": 9}, "format_version is 9"),
        ({"draws": None}, "draws: must be an object"),
        ({"rho_0": "much"}, "rho_0: must be a finite number"),
        ({"region": {"teachers": [3, 1]}}, r"region.teachers: must be \[smallest, largest\]"),
        ({"coefficients": {"hot": {"E": 1.0}}}, "coefficients of hot: must be c, u, w, E, B, not E"),
        ({"extra": 1}, "unexpected keyword argument 'extra'"),
    ],
)
def test_a_damaged_file_is_told_by_its_field(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    place = tmp_path / "law.json"
    place.write_text(json.dumps(law(0.01).to_dict() | change))
    with pytest.raises(InputError, match=reason):
        PrivateTextLaw.load(place)


def test_a_file_that_misses_a_field_says_which(tmp_path: Path) -> None:
    content = law(0.01).to_dict()
    del content["loss_sd"]
    (tmp_path / "law.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="loss_sd is missing"):
        PrivateTextLaw.load(tmp_path / "law.json")
