"""The door: what a table may contain, and what is said about what it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits import read_runs, runs, validate
from fits.runs import parse_mapping
from scaling import InputError


def table(**columns: object) -> pd.DataFrame:
    plain = {"params": [1e6, 2e6, 4e6], "tokens": [1e8, 2e8, 4e8], "loss": [3.0, 2.8, 2.6]}
    return pd.DataFrame({**plain, **columns})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs{suffix}"
    frame = table()
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    pd.testing.assert_frame_equal(read_runs(path), validate(frame))


def test_a_mapping_by_symbol_and_compute_for_tokens(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    pd.DataFrame({"Name": ["a"], "size": ["143M"], "FLOP": [6e17], "val": [2.5]}).to_csv(path, index=False)
    read = read_runs(path, parse_mapping("N=size, C=FLOP, L=val, run=Name"))
    assert read.loc[0, "params"] == 143e6
    assert read.loc[0, "tokens"] == pytest.approx(6e17 / (6 * 143e6))
    assert read.loc[0, "run"] == "a"


def test_kind_follows_the_teacher() -> None:
    kinds = validate(table(teacher_loss=[np.nan, 2.5, 2.5]))["kind"]
    assert list(kinds) == ["supervised", "distillation", "distillation"]


def test_rows_that_cannot_be_used_stay_and_say_why() -> None:
    frame = table(loss=[3.0, np.nan, np.inf], status=["done", "done", "done"])
    assert list(validate(frame)["excluded"]) == ["", "no loss", "the loss is infinite: the run diverged"]
    frame = table(run=["a", "b", "c"], status=["done", "failed", "done"])
    assert list(validate(frame)["excluded"]) == ["", "status is 'failed'", ""]
    frame = table(kind="distillation", teacher_loss=[2.0, np.nan, 2.0])
    assert validate(frame)["excluded"][1] == "a distillation without its teacher's loss"


def test_a_repeated_row_counts_once() -> None:
    frame = pd.concat([table(run=["a", "b", "c"])] * 2, ignore_index=True)
    assert list(validate(frame)["excluded"]) == [""] * 3 + ["the same row again"] * 3


def test_checkpoints_of_a_run_and_repeated_seeds_are_kept() -> None:
    checkpoints = table(run="a", params=1e6)
    seeds = table(run=["a", "a", "b"], params=[1e6, 1e6, 2e6], tokens=1e8, seed=[0, 1, 0])
    assert (validate(checkpoints)["excluded"] == "").all()
    assert (validate(seeds)["excluded"] == "").all()


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (table().drop(columns="loss"), "no column 'loss'"),
        (table().rename(columns={"tokens": "token"}), r"did you mean 'token'\?"),
        (table(loss=["3.0", "oops", "2.6"]), "row 2, column 'loss': 'oops' is not a number"),
        (table(loss=[3.0, -2.0, 2.6]), "row 2, column 'loss': -2 is not positive"),
        (table(params=[143, 198, 546]), "not millions or billions"),
        (table(loss=[300.0, 20.0, 18.0]), "row 1, column 'loss': 300"),
        (table(loss=3.0), "every run has 3"),
        (table(loss=np.nan), "no row can be used: 3 x no loss"),
        (table(kind=["supervised", "distilled", "supervised"]), "row 2, column 'kind': 'distilled'"),
        (table(tokenizer=["a", "b", "a"]), "2 tokenizers"),
        (table(run="a"), "one run cannot have several params"),
        (table(run=["a", "a", "b"], params=[1e6, 1e6, 2e6], tokens=1e8), "different losses after the same"),
        (table(loss=[True, False, True]), "true/false"),
        (table().iloc[:0], "no rows"),
    ],
)
def test_what_a_bad_table_is_told(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        validate(frame)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("params,tokens\n1e6,1e8\n")
    with pytest.raises(InputError, match=r"runs\.csv: no column 'loss'; the columns are: params, tokens"):
        read_runs(path)
    with pytest.raises(InputError, match="no column 'size' to map N to"):
        read_runs(path, {"N": "size"})
    with pytest.raises(InputError, match="there is no such file"):
        read_runs(tmp_path / "none.csv")
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(InputError, match=r"broken\.parquet: not a readable parquet table"):
        read_runs(tmp_path / "broken.parquet")
    with pytest.raises(InputError, match="N=params,D=tokens"):
        parse_mapping("N")


def test_losses_in_bits() -> None:
    frame = table().rename(columns={"loss": "loss_bits"})
    assert validate(frame)["loss"][0] == pytest.approx(3.0 * np.log(2))


def test_units_mixed_within_a_column_and_tables_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="row 2, column 'params': 143 beside 4e"):
        validate(table(params=[1e6, 143, 4e6]))
    monkeypatch.setattr(runs, "MOST_ROWS", 2)
    with pytest.raises(InputError, match="3 rows, of at most 2: thin its checkpoints"):
        validate(table())


def test_a_teacher_in_the_table_lends_its_loss() -> None:
    frame = table(run=["small", "big", "student"], teacher=[None, None, "big"])
    read = validate(frame)
    assert read["teacher_loss"][2] == 2.8
    assert list(read["kind"]) == ["supervised", "supervised", "distillation"]
