"""The architecture for FLOPs is read from the table under any name, given, or assumed with a note."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from samples_of_fits import sweep

import fits
from fits.table.flops import table_accounting, table_architecture, training_flops
from scaling import InputError, Question, plan
from scaling.reports.plan_text import plan_text

GIVEN = {"context": 128, "vocab": 512, "aspect_ratio": 32}


def base() -> pd.DataFrame:
    return fits.validate(sweep(noise=0.003))


@pytest.mark.parametrize(
    "columns",
    [
        {"context": 128, "vocab": 512, "aspect_ratio": 32.0},
        {"seq_len": 128, "vocab_size": 512, "d_model": 64, "n_layers": 2},
        {"context_length": 128, "n_vocab": 512, "hidden_size": 64, "num_hidden_layers": 2},
        {"model.block_size": "128", "config/Vocab Size": "512", "n_embd": 64, "n_layer": 2},
    ],
)
def test_the_table_says_it_under_any_name(columns: dict[str, object]) -> None:
    found = table_architecture(base().assign(**columns))
    assert (found.context, found.vocab, found.aspect_ratio) == (128, 512, 32)
    assert set(found.origins.values()) == {"table"}
    assert table_accounting(base().assign(**columns)).effect == ""


def test_a_teachers_columns_are_not_the_students() -> None:
    found = table_architecture(base().assign(**{"teacher_vocab": 9999, "teacher.d_model": 8, "n_layers": 2}))
    assert set(found.origins.values()) == {"assumed"}


def test_several_values_give_their_median_and_say_so() -> None:
    runs = base()
    ratios = [16, 32, 64] * len(runs)
    found = table_architecture(runs.assign(d_model=ratios[: len(runs)], n_layers=1))
    assert found.aspect_ratio == 32
    assert found.origins["aspect_ratio"] == "table, median of 16 to 64"


def test_a_column_without_a_number_is_named() -> None:
    found = table_accounting(base().assign(vocab="gpt2"))
    assert found.origins["vocab"] == "assumed, as column 'vocab' holds no number"
    assert "vocabulary 32768" in found.effect


def test_what_is_given_wins_and_a_wrong_name_is_refused() -> None:
    found = table_architecture(base().assign(vocab=1024), GIVEN)
    assert (found.context, found.vocab, found.aspect_ratio) == (128, 512, 32)
    assert set(found.origins.values()) == {"given"}
    with pytest.raises(InputError, match="'vocabulary' is not one of context, vocab, aspect_ratio"):
        fits.fit(base(), architecture={"vocabulary": 512})


def test_check_and_fit_say_it_in_their_first_lines_and_the_calibration_carries_it() -> None:
    runs = base().assign(vocab=512)
    first = str(fits.check(runs)).splitlines()[1:3]
    assert "context 4096 (assumed), vocabulary 512 (from the table), aspect ratio 128 (assumed)" in first[0]
    assert "times what is counted here" in first[1]
    found = fits.fit(runs, draws=20, held_out=False)
    lines = found.summary().splitlines()[1:3]
    assert [line.strip() for line in first] == lines
    assert json.loads(found.report("json"))["accounting"]["origins"]["context"] == "assumed"
    assert "(assumed)" in found.report("html")
    assert dict(found.calibration.architecture.origins) == {
        "context": "assumed",
        "vocab": "table",
        "aspect_ratio": "assumed",
    }
    answer = plan(Question(student_params=3e4, budget=1e12), found.calibration)
    assert "context 4096" in plan_text(answer).splitlines()[1]
    sure = fits.fit(runs, draws=20, held_out=False, architecture=GIVEN)
    assert sure.summary().splitlines()[1].endswith("(all given).")
    assert "Assumed" not in sure.summary()


def test_tokens_that_follow_from_compute_say_what_aspect_ratio_they_assume() -> None:
    _, rule = training_flops(base().assign(vocab=512, seq_len=128))
    assert rule.endswith("attention and vocabulary counted, aspect ratio 128 (assumed)")
