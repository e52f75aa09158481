from __future__ import annotations

import pytest

from scaling.costs.scenarios import DESCRIPTIONS, SCENARIOS, Scenario, scenario
from scaling.errors import InputError


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_goes_by_its_name_and_by_the_words_that_plans_print(name: str) -> None:
    spellings = [name, name.replace("_", "-"), name.upper(), DESCRIPTIONS[name], f" {DESCRIPTIONS[name]} "]
    assert {scenario(each) for each in spellings} == {SCENARIOS[name]}


@pytest.mark.parametrize("word", ["amortized", "amortised"])
def test_shares_may_be_given(word: str) -> None:
    assert scenario(f"{word}:1,0.25") == Scenario(f"{word}:1,0.25", 1.0, 0.25)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("teacher", "unknown scenario 'teacher'; there are best_case, teacher_inference,"),
        ("amortized", "write amortized:LOGITS,PRETRAINING"),
        ("amortized:1", "write amortized:LOGITS,PRETRAINING"),
        ("amortized:1,2", "pretraining must be a share from 0 to 1, not 2"),
        ("amortized:a,0", "scenario 'amortized:a,0'"),
    ],
)
def test_other_names_are_rejected(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario(name)
