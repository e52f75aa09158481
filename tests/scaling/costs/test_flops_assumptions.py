"""Every answer states the accounting of FLOPs and the effect of assumed numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples_of_calibrations import tiny

from scaling import Architecture, Calibration, InputError, Question, frontier, plan
from scaling.costs.flops_assumptions import ASSUMED, COUNTED, GIVEN, PLAUSIBLE, extremes, with_numbers
from scaling.reports.plan_text import calibration_text, percentages, plan_html, plan_text

FROZEN = Path(__file__).parents[1] / "calibration" / "frozen" / "calibration-1.json"


def assuming(*names: str, **numbers: float) -> Calibration:
    """A small calibration of which these numbers were assumed and the others given."""
    origins = {name: ASSUMED if name in names else GIVEN for name in COUNTED}
    made = tiny()
    return replace(made, architecture=replace(made.architecture, origins=origins, **numbers))


ASKED = Question(student_params=3e4, budget=1e13)


def test_every_plan_says_what_flops_are_reckoned_with() -> None:
    answer = plan(ASKED, assuming("vocab"))
    words = "context 128 (given), vocabulary 512 (assumed), aspect ratio 16 (given)"
    assert words in plan_text(answer)
    assert words in plan_html(answer)
    counted = json.loads(json.dumps(answer.to_dict()))["accounting"]
    assert counted["vocab"] == 512
    assert counted["origins"] == {"context": "given", "vocab": "assumed", "aspect_ratio": "given"}
    assert counted["rule"] == "detailed"
    assert words in calibration_text(assuming("vocab"))
    along = frontier(ASKED, [1e12, 1e13], assuming("vocab"))
    assert any(words in note for note in along.notes())
    assert words in along._repr_html_()


def test_published_sets_assume_nothing() -> None:
    answer = plan(Question(student_params=3e8, budget=1e21))
    assert answer.accounting.effect == ""
    assert "context 4096, vocabulary 32768, aspect ratio 128 (all given)" in plan_text(answer)
    counted = plan(Question(student_params=3e8, budget=1e21), "hoffmann2022")
    assert "FLOPs are 6ND" in plan_text(counted)
    assert counted.accounting.effect == ""


def test_what_an_assumption_changes_is_computed_and_stands_in_the_first_lines() -> None:
    fitted = assuming("vocab")
    answer = plan(ASKED, fitted)
    first = plan_text(answer).splitlines()[1]
    assert first == answer.accounting.effect
    assert first.startswith("Assumed for the FLOPs, as nothing says otherwise: vocabulary 512. Over ")
    for vocab in PLAUSIBLE["vocab"]:
        other = plan(replace(ASKED, architecture=replace(fitted.architecture, vocab=vocab)), fitted)
        assert (
            f"{other.direct[0].tokens / 1e6:.3g}M" in first or f"{other.direct[0].tokens / 1e3:.3g}K" in first
        )
    assert "verdict" in first
    aimed = plan(Question(student_params=3e4, target_loss=4.0), fitted)
    assert "direct training takes" in aimed.accounting.effect
    assert f"{answer.accounting.effect}" in plan_html(answer).replace("&#x27;", "'")


def test_a_verdict_that_an_assumption_would_turn_is_named() -> None:
    fitted = assuming("vocab", "context")
    answer = plan(ASKED, fitted)
    turned = {}
    for end in extremes(fitted.architecture, ("vocab", "context"), 3e4):
        other = plan(replace(ASKED, architecture=end), fitted)
        for way, was in zip(other.distillations, answer.distillations, strict=True):
            if way.verdict != was.verdict:
                turned.setdefault(way.title, []).append(way.verdict)
    assert turned
    assert next(iter(turned)) in answer.accounting.effect


def test_what_the_question_gives_is_no_longer_assumed() -> None:
    fitted = assuming("vocab")
    for asked in (replace(fitted.architecture, vocab=4096), with_numbers(fitted.architecture, vocab=512)):
        answer = plan(replace(ASKED, architecture=asked), fitted)
        assert answer.accounting.origins["vocab"] == GIVEN
        assert answer.accounting.effect == ""
    bare = plan(replace(ASKED, architecture=Architecture(vocab=512, context=128, aspect_ratio=16)), fitted)
    assert bare.accounting.origins == dict.fromkeys(COUNTED, GIVEN)


def test_extremes_cost_least_and_most() -> None:
    base = tiny().architecture
    low, high = (
        each.forward_flops(1e6) for each in extremes(base, ("context", "vocab", "aspect_ratio"), 1e6)
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = {name: float(np.exp(rng.uniform(*np.log(ends)))) for name, ends in PLAUSIBLE.items()}
        assert low <= with_numbers(base, **drawn).forward_flops(1e6) <= high


def test_origins_are_kept_in_the_file_and_files_without_them_are_read(tmp_path: Path) -> None:
    path = assuming("vocab").save(tmp_path / "mine.json")
    read = Calibration.load(path)
    assert read.architecture.origins == {"context": "given", "vocab": "assumed", "aspect_ratio": "given"}
    assert "origins" not in json.loads(path.read_text())["architecture"]  # which 0.1.0 would refuse
    old = plan(Question(student_params=3e8, budget=1e21), FROZEN)
    assert "(all not recorded)" in plan_text(old)
    assert "vocabulary 32768" in old.accounting.effect  # as 0.1.0 assumed where a table said nothing
    changed = json.loads(path.read_text()) | {"architecture_origins": {"vocab": 3}}
    with pytest.raises(InputError, match=r"architecture_origins\.vocab: must be a text"):
        Calibration.from_dict(changed)


def test_serving_is_part_of_the_split_and_the_split_is_whole() -> None:
    answer = plan(Question(student_params=3e8, budget=1e21, lifetime_tokens=3e11))
    for way in (*answer.direct, *answer.distillations):
        assert len(way.shares) == 4
        assert sum(way.shares) == pytest.approx(1)
        assert way.shares[3] == pytest.approx(way.serving_flops / 1e21)
        assert "/".join(map(str, percentages(way.shares))) in plan_text(answer)
    assert "teacher training / serving" in plan_text(answer)
    assert "75/0/0/25" in plan_text(answer)
    alone = plan(Question(student_params=3e8, budget=1e21))
    assert "100/0/0 " not in plan_text(answer)
    assert "100/0/0" in plan_text(alone)


def test_percentages_sum_to_a_hundred() -> None:
    rng = np.random.default_rng(0)
    for parts in (2, 3, 4):
        for shares in rng.dirichlet(np.ones(parts), 200):
            rounded = percentages(list(map(float, shares)))
            assert sum(rounded) == 100
            assert np.all(np.abs(np.array(rounded) - 100 * shares) < 1)
