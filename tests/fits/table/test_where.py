"""Selection of rows by conditions, in tables of any form."""

from __future__ import annotations

import io

import pandas as pd
import pytest

import fits
from fits.table.where import matching_rows, parse_condition
from scaling.errors import InputError

CSV = (
    b"Model Size,tokens_seen,val_loss,State,note\n1e8,2e9,3.1,finished,\n2e8,4e9,2.9,crashed,x\n"
    b"4e8,8e9,2.7,Finished,y\n"
)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("State==finished", [0, 2]),
        ("status == finished", [0, 2]),
        ("State!=crashed", [0, 2]),
        ("N>=200M", [1, 2]),
        ("tokens_seen<8B", [0, 1]),
        ("val_loss<=2.9", [1, 2]),
        ("note==y", [2]),
        ("note==", [0]),
        ("note!=x", [0, 2]),
        ("\"Model Size\"==1e8", [0]),
    ],
)  # fmt: skip
def test_rows_that_fulfil_a_condition_are_read(condition: str, kept: list[int]) -> None:
    runs = fits.read_runs(io.BytesIO(CSV), {"N": "Model Size"}, where=condition)
    assert runs["loss"].tolist() == [[3.1, 2.9, 2.7][i] for i in kept]
    assert f"{len(kept)} of 3 rows, where {condition}" in runs.attrs["read_as"]


def test_several_conditions_hold_together() -> None:
    runs = fits.read_runs(io.BytesIO(CSV), {"N": "Model Size"}, where=["State==finished", "N>1e8"])
    assert runs["loss"].tolist() == [2.7]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("finished", "write NAME==VALUE"),
        ("State=finished", "write NAME==VALUE"),
        ("state_of==finished", "no column 'state_of'; the columns are"),
        ("State<finished", "compares numbers"),
        ("State==done", "none of the 3 rows fulfils State==done"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(condition: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fits.read_runs(io.BytesIO(CSV), {"N": "Model Size"}, where=condition)


def test_a_column_that_only_other_parts_of_a_table_have_is_empty() -> None:
    table = pd.DataFrame({"a": [1, 2]})
    assert not len(matching_rows(table, ["b==1"], known=["b"]))
    assert len(matching_rows(table, ["b!=1"], known=["b"])) == 2


def test_names_may_be_quoted() -> None:
    found = parse_condition("\"wd=0.1, x\" >= '3'")
    assert (found.name, found.sign, found.value) == ("wd=0.1, x", ">=", "3")
