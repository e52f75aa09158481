"""The door: what a table may contain, and what is said about what it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits import read_runs, validate
from fits.checks.design import table_notes
from fits.table import files, subsample
from fits.table.columns.column_names import parse_mapping
from scaling import InputError
from scaling.costs.flops import Architecture


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
    assert read.loc[0, "tokens_from"] == "compute / (6 params), attention and vocabulary not counted"


def test_compute_is_counted_as_the_table_says() -> None:
    """With vocabulary and context, a token costs three forward passes of that architecture."""
    models = Architecture(vocab=512, context=128, aspect_ratio=24.0)
    frame = table(vocab=512, context=128, aspect_ratio=24.0)
    compute = 3 * models.forward_flops(frame["params"].to_numpy()) * frame["tokens"]
    read = validate(frame.drop(columns="tokens").assign(compute=compute))
    np.testing.assert_allclose(read["tokens"], frame["tokens"])
    assert set(read["tokens_from"]) == {"compute / (3 F), attention and vocabulary counted"}
    assert (validate(read)["tokens_from"] == read["tokens_from"]).all()


def test_exported_tables_name_their_runs(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    exported = table(Name="sweep", ID=["x", "x", "y"], State=["finished", "crashed", "running"])
    exported.assign(params=1e6).to_csv(path, index=False)
    read = read_runs(path)
    assert list(read["run"]) == ["x", "x", "y"]
    assert list(read["excluded"]) == ["", "status is 'crashed'", "status is 'running'"]


def test_kind_follows_the_teacher() -> None:
    kinds = validate(table(teacher_loss=[np.nan, 2.5, 2.5]))["kind"]
    assert list(kinds) == ["supervised", "distillation", "distillation"]


@pytest.mark.parametrize(("column", "value"), [("teacher_params", 1e7), ("method", "forward-kl")])
def test_whatever_has_a_teacher_is_no_supervised_run(column: str, value: object) -> None:
    frame = table(**{column: [None, value, value]})
    read = validate(frame.assign(teacher_loss=[np.nan, 2.5, np.nan]))
    assert list(read["kind"]) == ["supervised", "distillation", "distillation"]
    assert list(read["excluded"]) == ["", "", "a distillation without its teacher's loss"]
    with pytest.raises(InputError, match=r"all 2 distillations .* lack their teacher's loss"):
        validate(frame)


def test_kind_in_any_case() -> None:
    assert set(validate(table(kind=["Supervised", " SUPERVISED", "supervised"]))["kind"]) == {"supervised"}


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


def test_cells_may_name_the_unit_that_the_table_is_read_in() -> None:
    plain = table(loss=[3.0, 2.8, 2.6], loss_se=[0.01, 0.02, 0.03])
    nats = table(
        loss=["3.0 nats", "2.8 nats/token", " 2.6 nats per token "], loss_se=["0.01 nats", "0.02", 0.03]
    )
    tokens = [f"{value / 1e9:g}B tokens" for value in plain["tokens"]]
    pd.testing.assert_frame_equal(validate(nats.assign(tokens=tokens)), validate(plain))
    bits = table(loss=["4.3 bits/token", "4.0", "3.7 bits/token"])
    expected = validate(table(loss=[4.3, 4.0, 3.7]), loss_unit="bits/token")
    pd.testing.assert_frame_equal(validate(bits, loss_unit="bits/token"), expected)
    with pytest.raises(InputError, match=r"'3.0 nats' is in nats/token, but --loss-unit is bits/token"):
        validate(nats, loss_unit="bits/token")


def test_a_repeated_row_without_a_name_counts_once_too() -> None:
    read = validate(pd.concat([table()] * 4, ignore_index=True))
    assert (read["excluded"] == "the same row again").sum() == 9
    assert (validate(read)["excluded"] == read["excluded"]).all()


def test_rows_without_a_name_are_runs_of_their_own() -> None:
    assert list(validate(table(run=[None, "b", None]))["run"]) == ["row-1", "b", "row-3"]


def test_failed_runs_may_be_of_another_text() -> None:
    frame = table(run=["a", "b", "c"], status=["done", "done", "failed"], corpus=["kjv", "kjv", "c4"])
    assert validate(frame)["excluded"][2] == "status is 'failed'"


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
        (
            table(loss=["3.0 nats", "1.07 bits/byte", "2.6"]),
            "row 2, column 'loss': '1.07 bits/byte' is in bits/byte, but losses must be in nats/token; if all "
            "losses are in bits/byte, add --bytes-per-token 4.2",
        ),
        (
            table(teacher_loss=["9.1 ppl", None, None]),
            "row 1, column 'teacher_loss': '9.1 ppl' is in perplexity",
        ),
        (
            table(loss=["3.0 ± 0.01"] * 3),
            "'3.0 ± 0.01' is not a number; write 3.0, and 0.01 in a column loss_se",
        ),
        (table(tokens=["300 million tokens"] * 3), "'300 million tokens' is not a number; write 300M"),
        (
            table(params=[10, 100, 1000], tokens=[0.3, 3.0, 30.0]),
            r"row 1, column 'params': no run has 10 .*state both, as in --map 'N=params\*1e6,D=tokens\*1e9'",
        ),
        (table(tokens=[0.3, 6e8, 3e9]), "row 1, column 'tokens': no run has 0.3 [^;]*; write tokens in full"),
        (table(params=[143, 198, 546]), "row 1, column 'params': no run has 143 parameters .*in millions"),
        (
            table(tokens=[1e18, 2e18, 4e18]),
            "row 2, column 'tokens': no run has 2e.18 tokens .*if it is compute",
        ),
        (
            table(loss=["3,0", "2,8", "2,6"]),
            "row 1, column 'loss': '3,0' has a comma, perhaps a decimal comma",
        ),
        (table(loss=[300.0, 20.0, 18.0]), "row 1, column 'loss': 300"),
        (table(loss=3.0), "every run has 3"),
        (table(loss=np.nan), "no row can be used: 3 x no loss"),
        (table(kind=["supervised", "distilled", "supervised"]), "row 2, column 'kind': 'distilled'"),
        (table(tokenizer=["a", "b", "a"]), "2 tokenizers"),
        (table(vocab=[512, 512, 4096]), "2 vocabularies .'4096', '512'."),
        (table(corpus=["kjv", "kjv", "c4"]), "2 texts .'c4', 'kjv'."),
        (table(setting=["x", "y", "x"]), "column 'setting' names 2 settings"),
        (table(loss_se=[0.01, 0.0, np.nan]), "row 2, column 'loss_se': 0 is not positive; leave it empty"),
        (table(projected_sd=[0.01, np.inf, np.nan]), "row 2, column 'projected_sd': inf is not finite"),
        (pd.concat([table(), table()[["loss"]]], axis=1), "two columns named 'loss'"),
        ([1, 2], "a pandas DataFrame, one row a run, not a list"),
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
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "none.csv")
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(InputError, match=r"broken\.parquet: not a readable table"):
        read_runs(tmp_path / "broken.parquet")
    with pytest.raises(InputError, match="N=params,D=tokens"):
        parse_mapping("N")
    with pytest.raises(InputError, match="gives N 2 times"):
        parse_mapping("N=a,N=b")


def test_mappings_and_separators_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    table().to_csv(path, index=False)
    with pytest.raises(InputError, match="column 'params' cannot be both params and tokens"):
        read_runs(path, {"N": "params", "D": "params"})
    with pytest.raises(InputError, match="two columns are mapped to params, 'tokens' is the second"):
        read_runs(path, {"N": "params", "params": "tokens"})
    table().to_csv(path, index=False, sep=";", decimal=",")
    with pytest.raises(InputError, match=r"runs\.csv: row 1, column 'params': '1000000,0' has a comma"):
        read_runs(path)
    pd.testing.assert_frame_equal(read_runs(path, decimal=","), validate(table()))


def test_losses_in_bits() -> None:
    frame = table().rename(columns={"loss": "loss_bits"})
    assert validate(frame)["loss"][0] == pytest.approx(3.0 * np.log(2))


def test_units_mixed_within_a_column() -> None:
    with pytest.raises(InputError, match=r"row 2, column 'params': no run has 143 .*the largest value is 4e"):
        validate(table(params=[1e6, 143, 4e6]))


def checkpoints() -> pd.DataFrame:
    """Ten runs with 400 checkpoints, from 1e8 tokens to 1e10 in equal steps."""
    N, D = np.repeat(np.geomspace(1e6, 1e8, 10), 400), np.tile(np.linspace(1e8, 1e10, 400), 10)
    names = np.repeat([f"run {i}" for i in range(10)], 400)
    return pd.DataFrame({"run": names, "params": N, "tokens": D, "loss": 1 + (1e9 / N / D**0.5) ** 0.2})


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_neighboring_checkpoints_of_a_large_table_are_thinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Read in parts, thinned wherever they pass the limit; what is kept does not depend on the parts."""
    monkeypatch.setattr(subsample, "MAX_ROWS", 2000)
    monkeypatch.setattr(files, "ROWS_PER_PART", 300)
    path = tmp_path / f"runs{suffix}"
    writers = {".csv": "to_csv", ".parquet": "to_parquet", ".jsonl": "to_json"}
    how = {".csv": {"index": False}, ".parquet": {}, ".jsonl": {"orient": "records", "lines": True}}
    getattr(checkpoints(), writers[suffix])(path, **how[suffix])
    read = read_runs(path)
    assert len(read) < 1200
    assert (read.groupby("run")["tokens"].max() == 1e10).all()
    gaps = read.groupby("run")["tokens"].apply(lambda tokens: np.diff(np.log(tokens))).explode()
    assert gaps.max() < np.log(1.3)
    assert "of 4,000 rows" in table_notes(read)[0]
    whole = validate(checkpoints())
    pd.testing.assert_frame_equal(read[["run", "tokens", "loss"]], whole[["run", "tokens", "loss"]])


def test_what_cannot_be_thinned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsample, "MAX_ROWS", 500)
    with pytest.raises(InputError, match=r"over 500 rows.*name their runs in a column 'run'"):
        validate(checkpoints().drop(columns="run"))
    with pytest.raises(InputError, match=r"4,000 rows or more, .* even with one checkpoint of a run"):
        validate(checkpoints())
    monkeypatch.setattr(subsample, "MAX_ROWS", 2000)
    quantities = checkpoints().assign(tokens=[f"{D / 1e6:.6f}M" for D in checkpoints()["tokens"]])
    assert len(validate(quantities)) == len(validate(checkpoints()))


def test_a_teacher_in_the_table_lends_its_loss() -> None:
    frame = table(run=["small", "big", "student"], teacher=[None, None, "big"])
    read = validate(frame)
    assert read["teacher_loss"][2] == 2.8
    assert list(read["kind"]) == ["supervised", "supervised", "distillation"]


def pairs(scale: float = 1.0, teacher_scale: float = 1.0) -> pd.DataFrame:
    """Three supervised runs, and a student of the third at the size and tokens of each."""
    alone = table(run=["a", "b", "c"], kind="supervised")
    students = table(run=["d", "e", "f"], kind="distillation", teacher="c", teacher_loss=2.6 * teacher_scale)
    return pd.concat([alone, students.assign(loss=students["loss"] * 0.98 * scale)], ignore_index=True)


def test_bits_beside_nats_are_told_by_the_runs_that_must_agree() -> None:
    bits = float(1 / np.log(2))
    assert (validate(pairs())["excluded"] == "").all()
    with pytest.raises(InputError, match=r"row 4.*run 'c' has 2\.6.*1\.443 times.*in bits/token"):
        validate(pairs(teacher_scale=bits))
    with pytest.raises(InputError, match=r"far above, both their teachers.*in bits/token"):
        validate(pairs(scale=bits))
    with pytest.raises(InputError, match=r"far below, both their teachers"):
        validate(pairs(scale=1 / bits))


def test_a_point_beside_a_decimal_comma_is_refused_where_it_may_separate_thousands(tmp_path: Path) -> None:
    """With ``decimal=","`` the text 4.213 may be four thousand."""
    path = tmp_path / "runs.csv"
    path.write_text("params;tokens;loss\n1e6;2e7;4.213\n")
    with pytest.raises(
        InputError, match=r"'4.213' has a point .* write 4213 if it separates thousands, or 4,213"
    ):
        read_runs(path, decimal=",")
    path.write_text("params;tokens;loss\n1.000.000;2e7;4,213\n")
    with pytest.raises(
        InputError, match=r"'1.000.000' has a point .* write 1000000 if it separates thousands$"
    ):
        read_runs(path, decimal=",")
    path.write_text("params;tokens;loss\n1e6;2e7;4,213\n")
    assert read_runs(path, decimal=",")["loss"].tolist() == [4.213]


def test_a_column_of_weights_is_said_to_be_unused() -> None:
    frame = pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "L": [3.1, 2.9], "Sample weight": [1, 2]})
    notes = table_notes(validate(frame))
    assert any(
        note.startswith("not used: column 'Sample weight': every row weighs the same") for note in notes
    )
    other = table_notes(validate(frame.rename(columns={"Sample weight": "weight_decay"})))
    assert not any("weigh" in note for note in other)
