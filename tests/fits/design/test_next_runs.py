"""Proposals: options of questions, ladders, stopping, bad input, and how fast 5,000 candidates are weighed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fits.design.belief import believe
from fits.design.candidates import Candidates, candidates_of_steps
from fits.design.ladder import ladder_for
from fits.design.next_runs import next_runs
from fits.design.points import Points
from fits.design.question_options import TeacherOption, decisions_of
from fits.design.regret import DecisionOptions, expected_regret
from fits.design.sweep_design import design_for
from fits.estimation.laws.sibling import Sibling
from fits.table.runs import validate
from scaling import Architecture, EffectiveTokensLaw, InputError, KnownTeacher, Question, SupervisedLaw
from scaling.costs.flops_assumptions import with_numbers
from scaling.costs.scenarios import SCENARIOS, cost

LAW = SupervisedLaw(E=1.5, A=30.0, B=6000.0, alpha=0.31, beta=0.66, gamma=0.8)
DISTILLED = EffectiveTokensLaw(k=1.3, q=7.0, eps=0.01)
ARCHITECTURE = Architecture(context=128, vocab=512, aspect_ratio=32.0)
QUESTION = Question(student_params=4e5, budget=3e13, scenarios=("teacher_pretraining",))  # type: ignore[arg-type]
TEACHERS = [TeacherOption(params=4e5, tokens=4e6), TeacherOption(params=1.6e6, tokens=4e6)]


def grid(sizes: int = 5, lengths: int = 4, teachers: int = 4, seeds: int = 1) -> Candidates:
    """Return supervised runs of every size and length, and students of some of them."""
    rows: list[dict[str, Any]] = []
    flops: list[float] = []
    needs: list[list[int]] = []
    cells = [
        (N, D, seed)
        for seed in range(seeds)
        for N in np.geomspace(1e4, 2e5, sizes)
        for D in np.geomspace(5e5, 8e6, lengths)
    ]
    for N, D, seed in cells:
        rows.append({"id": f"s{len(rows)}", "params": N, "tokens": D, "seed": seed})
        flops.append(6 * N * D)
        needs.append([len(needs)])
    for teacher in range(0, teachers * lengths, lengths):
        for N, D, seed in cells:
            own = {"teacher": f"s{teacher}", "teacher_params": rows[teacher]["params"]}
            own |= {"teacher_tokens": rows[teacher]["tokens"]}
            rows.append({"id": f"d{len(rows)}", "params": N, "tokens": D, "seed": seed} | own)
            flops.append(7 * N * D)
            needs.append([len(needs), teacher])
    return candidates_of_steps(rows, flops, needs)


def runs_of(candidates: Candidates, chosen: list[int], noise: float = 0.005) -> pd.DataFrame:
    """Return a table of candidates with losses of the law."""
    points = candidates.points.take(np.array(chosen, dtype=np.intp))
    taught = points.distilled
    L_T = LAW.loss(np.where(taught, points.N_T, 1e5), np.where(taught, points.D_T, 1e6))
    loss = np.where(taught, DISTILLED.loss(points.N, points.D, L_T, LAW), LAW.loss(points.N, points.D))
    loss = loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(loss)))
    return validate(
        pd.DataFrame(
            {
                "run": [candidates.ids[i] for i in chosen],
                "params": points.N,
                "tokens": points.D,
                "loss": loss,
                "teacher_loss": np.where(taught, L_T, np.nan),
            }
        )
    )


@pytest.fixture(scope="module")
def decisions() -> DecisionOptions:
    """One decision between direct training and students of two teachers."""
    return decisions_of([QUESTION], ARCHITECTURE, TEACHERS)


def test_options_spend_the_whole_budget_by_equation_9() -> None:
    for scenario in SCENARIOS.values():
        question = replace(QUESTION, scenarios=(scenario,))
        options = decisions_of([question], ARCHITECTURE, TEACHERS).options
        F_S, F_T = (ARCHITECTURE.forward_flops(N) for N in (options.N, np.nan_to_num(options.N_T, nan=1e5)))
        shares = cost(scenario, F_S, options.D, F_T, options.D_T)
        spent = np.where(options.distilled, shares.student + shares.logits + shares.teacher, shares.student)
        assert spent == pytest.approx(np.full(len(options), 3e13), rel=1e-9)


def test_named_teachers_and_constraints_are_the_options() -> None:
    named = Question(
        student_params=4e5, budget=3e13, scenarios=("teacher_inference",),  # type: ignore[arg-type]
        teachers=(KnownTeacher(name="mine", params=2e6, loss=2.1),),
    )  # fmt: skip
    options = decisions_of([named], ARCHITECTURE, TEACHERS).options
    assert options.L_T.tolist()[1:] == [2.1]
    bounded = replace(QUESTION, constraints={"teacher_params": (None, 5e5)})
    assert len(decisions_of([bounded], ARCHITECTURE, TEACHERS).options) == 2
    open_size = Question(budget=3e13, constraints={"student_params": (1e5, 1e6)})
    assert len(set(decisions_of([open_size], ARCHITECTURE, TEACHERS).options.N)) == 4


def test_a_constraint_widens_the_teachers_that_are_compared() -> None:
    def sizes(**constraints: Any) -> list[float]:
        options = decisions_of([replace(QUESTION, constraints=constraints)], ARCHITECTURE).options
        return sorted(set((options.N_T[np.isfinite(options.N_T)] / 4e5).tolist()))

    assert sizes() == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert sizes(teacher_params=(1e4, 1e6)) == [0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0]
    large = replace(QUESTION, budget=3e16, constraints={"teacher_params": (None, 2e7)})
    found = decisions_of([large], ARCHITECTURE)
    assert np.nanmax(found.options.N_T) == 32 * 4e5
    assert any("from teachers of 200K to 12.8M parameters" in note for note in found.notes)


def test_hardly_any_distillation_among_the_runs_is_warned_of(decisions: DecisionOptions) -> None:
    candidates = grid()
    supervised, taught = list(range(0, 20, 2)), [25, 35, 45]
    for chosen, warned in ((supervised, True), ([*supervised, *taught], False), (supervised[:4], False)):
        notes = next_runs(runs_of(candidates, chosen), candidates, decisions, regret=-1.0, slots=1).notes
        assert any("runs are distillations" in note for note in notes) == warned


def test_regret_falls_with_runs_and_the_right_option_is_found(decisions: DecisionOptions) -> None:
    candidates = grid()
    few, many = (runs_of(candidates, list(range(0, n, step))) for n, step in ((20, 5), (100, 2)))
    every = Points.joined([candidates.points, decisions.options])
    regrets = [expected_regret(believe(table, every), decisions).mean for table in (few, many)]
    assert regrets[1] < 0.5 * regrets[0] + 1e-4
    belief = believe(many, every)
    L_T = LAW.loss(
        np.nan_to_num(decisions.options.N_T, nan=1e5), np.nan_to_num(decisions.options.D_T, nan=1e6)
    )
    options = decisions.options
    truth = np.where(
        options.distilled, DISTILLED.loss(options.N, options.D, L_T, LAW), LAW.loss(options.N, options.D)
    )
    assert belief.losses(options) == pytest.approx(truth, rel=0.02)
    assert truth[decisions.chosen(belief.losses(options))[0]] == pytest.approx(truth.min(), abs=0.01)


def test_few_runs_never_stop_and_enough_do(decisions: DecisionOptions) -> None:
    candidates = grid()
    none = next_runs(None, candidates, decisions, regret=10.0)
    assert (none.stop, len(none.runs)) == (False, 4)
    enough = next_runs(runs_of(candidates, list(range(100))), candidates, decisions)
    assert enough.stop
    assert not enough.runs
    assert "stop: deciding now" in str(enough)


def test_a_run_says_what_it_tells_and_what_it_brings_along(decisions: DecisionOptions) -> None:
    found = next_runs(None, grid(), decisions, regret=-1.0, slots=4)
    first = found.runs[0]
    assert first.sd_after < 0.6 * first.sd_before
    assert first.why.startswith("lowers the variance in question by ")
    assert sum(run.flops for run in found.runs) == found.flops
    assert [run.sd_after for run in found.runs] == sorted((run.sd_after for run in found.runs), reverse=True)
    assert found.to_dict()["runs"][0]["label"] == first.label


def test_what_runs_elsewhere_is_not_proposed_and_counts_as_measured(decisions: DecisionOptions) -> None:
    candidates = grid()
    first = next_runs(None, candidates, decisions, regret=-1.0, slots=2)
    other = next_runs(None, candidates, decisions, regret=-1.0, slots=2, running=[first.runs[0].id])
    assert other.runs[0].id == first.runs[1].id
    assert "1 candidates are being trained elsewhere" in other.notes[0]


def test_a_measured_teacher_is_no_longer_predicted(decisions: DecisionOptions) -> None:
    candidates = grid()
    found = next_runs(runs_of(candidates, [0, 7, 13]), candidates, decisions, regret=-1.0, slots=40)
    teachers = [run.teacher_loss for run in found.runs if run.teacher_params == candidates.points.N[0]]
    assert teachers
    assert all(loss is not None for loss in teachers)


def test_a_projected_loss_with_its_own_variance_is_a_cheaper_candidate(decisions: DecisionOptions) -> None:
    """The same runs at half the price and a noise of 0.6 % more."""
    whole = grid(teachers=0)
    noisy = replace(whole, extra_sd=np.full(len(whole), 0.006))
    options = {"regret": -1.0, "slots": 3}
    full, projected = (next_runs(None, each, decisions, **options) for each in (whole, noisy))  # type: ignore[arg-type]
    assert projected.runs[2].sd_after > full.runs[2].sd_after


def test_a_ladder_stays_within_the_spend_and_below_the_question(decisions: DecisionOptions) -> None:
    ladder = ladder_for(decisions, ARCHITECTURE, 2e12)
    assert ladder.step_flops[: len(ladder)].max() < 4e13
    assert ladder.points.N.max() <= 4e5
    found = next_runs(None, ladder, decisions, spend=2e12, regret=-1.0)
    assert 0 < found.flops <= 2e12


def test_five_thousand_candidates_beside_five_hundred_runs_take_under_five_seconds(
    decisions: DecisionOptions,
) -> None:
    candidates = grid(sizes=20, lengths=20, teachers=12)
    assert len(candidates) > 5000
    table = runs_of(candidates, list(range(0, 5000, 10)))
    began = time.process_time()
    found = next_runs(table, candidates, decisions, regret=-1.0, slots=8)
    assert time.process_time() - began < 5
    assert len(found.runs) == 8


def test_runs_that_contradict_each_other_are_told_and_are_no_reason_to_stop(
    decisions: DecisionOptions,
) -> None:
    candidates = grid()
    table = runs_of(candidates, list(range(20)), noise=0.3)
    found = next_runs(table, candidates, decisions, regret=100.0)
    assert any(note.startswith("! ") and "they contradict each other" in note for note in found.notes)
    assert not found.stop
    assert next_runs(runs_of(candidates, list(range(20))), candidates, decisions, regret=100.0).stop


def test_a_sibling_is_used_as_far_as_it_reaches(decisions: DecisionOptions) -> None:
    reach = 6 * float(np.max(decisions.options.N * decisions.options.D))
    notes = {}
    for factor in (1.1, 0.3, 0.05):
        sibling = Sibling(name="old", law=LAW, largest_compute=factor * reach)
        found = next_runs(None, grid(), decisions, sibling=sibling)
        notes[factor] = (found.prior, " ".join(found.notes))
    assert [prior for prior, _ in notes.values()] == ["old", "old", "weak"]
    assert "3.3 times beyond the largest run of old" in notes[0.3][1]
    assert "the law of old is not used" in notes[0.05][1]


def test_a_sibling_of_another_vocabulary_is_refused(decisions: DecisionOptions) -> None:
    candidates = grid()
    sibling = Sibling(name="old", law=LAW, largest_compute=1e15, vocab=50257)
    table = runs_of(candidates, list(range(5)))
    message = "losses are of a vocabulary of 50257, and the {}'s of 512"
    with pytest.raises(InputError, match=message.format("table")):
        next_runs(table.assign(vocab=512), candidates, decisions, sibling=sibling)
    given = with_numbers(ARCHITECTURE, vocab=512)
    with pytest.raises(InputError, match=message.format("design")):
        design_for([QUESTION], 1e12, architecture=given, sibling=sibling)
    assert next_runs(table.assign(vocab=50257), candidates, decisions, sibling=sibling).prior == "old"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spend": 1e3}, "1e3 FLOPs buy none of the 100 candidates left; the cheapest costs 3e10"),
        (
            {"questions": [Question(student_params=4e5, target_loss=2.0)]},
            "give one in place of a target loss",
        ),
        ({"questions": [Question(student_params=4e9, budget=1e13)]}, "pays for no student"),
        ({"questions": [Question(family=(1e5, 2e5), budget=1e13)]}, "ask one question for each size"),
    ],
)
def test_what_cannot_be_proposed_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        next_runs(
            None,
            grid(),
            decisions_of(change.get("questions", [QUESTION]), ARCHITECTURE, TEACHERS),  # type: ignore[arg-type]
            spend=change.get("spend", 1e15),  # type: ignore[arg-type]
        )


def test_a_question_far_beyond_the_candidates_is_said() -> None:
    far = decisions_of([Question(student_params=1e9, budget=1e21)], ARCHITECTURE)
    assert any("times beyond the dearest candidate" in note for note in next_runs(None, grid(), far).notes)


def test_the_advice_to_stop_far_beyond_the_runs_is_a_warning(decisions: DecisionOptions) -> None:
    """The ladder of the question reaches it, and says nothing of how far the runs are."""
    small, far = grid(), decisions_of([Question(student_params=1e9, budget=1e21)], ARCHITECTURE)
    table = runs_of(small, list(range(20)))
    found = next_runs(table, ladder_for(far, ARCHITECTURE, np.inf), far, regret=10.0)
    assert found.stop
    assert any(
        note.startswith("! the question lies ") and "beyond the dearest run that is known" in note
        for note in found.notes
    )
    near = next_runs(table, small, decisions, regret=10.0)
    assert near.stop
    assert not any("dearest run" in note for note in near.notes)


def test_the_teachers_that_are_compared_are_named() -> None:
    """Direct training wins against small teachers only; a reader must see that no other was looked at."""
    small = decisions_of([Question(student_params=1e9, budget=1e21)], ARCHITECTURE, TEACHERS)
    first, second = small.notes
    assert first.startswith("a 1B student is compared trained directly and from teachers of ")
    assert "no teacher that is compared is as large as the 1B student" in second
    found = next_runs(None, grid(), small)
    assert set(small.notes) <= set(found.notes)
    assert "\nwarning: no teacher that is compared is as large as the 1B student" in str(found)
    (only,) = decisions_of([Question(student_params=1e9, budget=1e21)], ARCHITECTURE).notes
    assert only.endswith("from teachers of 500M to 8B parameters")
    bounded = Question(student_params=1e9, budget=1e21, constraints={"teacher_params": (None, 2.5e9)})
    assert decisions_of([bounded], ARCHITECTURE).notes[0].endswith("from teachers of 500M to 2B parameters")
    barred = Question(student_params=1e9, budget=1e21, constraints={"teacher_params": (1e12, None)})
    assert "leaves no teacher for a 1B student" in decisions_of([barred], ARCHITECTURE).notes[0]
