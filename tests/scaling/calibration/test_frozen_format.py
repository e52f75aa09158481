"""Calibration files that were written once are read for ever, with the same numbers.

``frozen/calibration-1.json`` was written by format version 1 and is never changed. A new version adds a file.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaling import Calibration, Question, plan
from scaling.calibration.calibration import FORMAT_VERSION
from scaling.laws import OverTrainingLaw
from scaling.laws.registry import LAWS

FROZEN = Path(__file__).parent / "frozen"
N, D, L_T = 3e8, 1e11, 2.2
LOSSES = {  # nats/token: of the fitted coefficients, and of the last draw
    "published": (2.377678724148468, 2.3752080323838256),
    "effective-tokens": (2.399712243669571, 2.4013633135723778),
    "published-9": (2.378962556770667, 2.376553131470295),
    "published-7": (2.501808414717312, 2.486456518852454),
    "effective-tokens-capacity": (2.398883794612072, 2.39686655989817),
}


@pytest.fixture
def frozen() -> Calibration:
    return Calibration.load(FROZEN / "calibration-1.json")


def test_every_version_has_its_file() -> None:
    versions = {json.loads(path.read_text())["format_version"] for path in FROZEN.glob("*.json")}
    assert versions == set(range(1, FORMAT_VERSION + 1))


def test_it_holds_every_kind_of_law(frozen: Calibration) -> None:
    assert set(frozen.distillation) == set(LOSSES)
    assert set(LOSSES) <= set(LAWS)


def test_its_losses_are_what_they_were(frozen: Calibration) -> None:
    alone = frozen.supervised.loss(1e9, 2e10), frozen.sampled_supervised().loss(1e9, 2e10)[-1, 0]
    assert alone == pytest.approx((2.3746922483534956, 2.375513376316029), rel=1e-13)
    for kind, expected in LOSSES.items():
        fitted = frozen.law(kind).loss(N, D, L_T, frozen.supervised)
        drawn = frozen.sampled_law(kind).loss(N, D, L_T, frozen.sampled_supervised())[-1, 0]
        assert (fitted, drawn) == pytest.approx(expected, rel=1e-13), kind


def test_everything_else_in_it_is_read(frozen: Calibration) -> None:
    assert frozen.default == "published"
    assert frozen.draw_count == 3
    assert frozen.residual_sd["effective-tokens"] == 0.0053669919459643734
    assert frozen.region.student_params == (143000000.0, 7750000000.0)
    assert frozen.region.runs == {"supervised": 0, "distillation": 354}
    assert not frozen.trusts("effective-tokens", student_params=3e9)
    assert frozen.architecture.rule == "detailed"
    assert frozen.provenance.warnings == ("A frozen file, for a test.",)
    assert frozen.provenance.software["numpy"] == "2.4.6"


def test_it_is_planned_with(frozen: Calibration) -> None:
    assert plan(Question(student_params=3e8, budget=1e21), frozen).headline


def test_what_is_written_today_holds_all_of_it(frozen: Calibration) -> None:
    before = json.loads((FROZEN / "calibration-1.json").read_text())
    after = json.loads(frozen.to_json())
    assert {name: after[name] for name in before} == before


def test_the_second_version_holds_weights_and_the_misfit_of_laws() -> None:
    second = Calibration.load(FROZEN / "calibration-2.json")
    assert second.law_weights["effective-tokens"] == 0.5
    assert second.misfit["published"].better_teacher_growth == 0.5
    assert second.misfit["published"].fitted["teacher_loss"] == (1.9, 2.8)
    assert json.loads(second.to_json()) == json.loads((FROZEN / "calibration-2.json").read_text())


def test_an_old_file_says_that_the_misfit_of_its_laws_is_unknown(frozen: Calibration) -> None:
    assert not frozen.misfit
    said = plan(Question(student_params=3e8, budget=1e21), frozen).assumptions
    assert any("errors were never measured on runs left out" in line for line in said)


def test_the_third_version_holds_other_supervised_laws_and_the_size_of_experts() -> None:
    third = Calibration.load(FROZEN / "calibration-3.json")
    assert isinstance(third.supervised, OverTrainingLaw)
    assert third.supervised.loss(1e9, 2e10) == pytest.approx(2.838132925288085, rel=1e-13)
    assert third.size == "total" and third.architecture.active_share == 0.25
    assert json.loads(third.to_json()) == json.loads((FROZEN / "calibration-3.json").read_text())
