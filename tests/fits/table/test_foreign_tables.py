"""Tables as other tools and people write them: read as they were meant, or refused with what to type."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from fits import check, fit, read_runs, validate
from fits.table.columns.column_names import parse_mapping
from scaling import InputError, SupervisedLaw

LAW = SupervisedLaw(E=1.6, A=200.0, B=3000.0, alpha=0.34, beta=0.4)
SIZES, TOKENS = (2e6, 5e6, 12e6, 30e6, 80e6), (1e8, 3e8, 1e9, 3e9)


def base() -> pd.DataFrame:
    """Twenty supervised runs, five sizes by four token counts."""
    N, D = (axis.ravel() for axis in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    noise = np.exp(0.002 * np.random.default_rng(3).standard_normal(len(N)))
    return pd.DataFrame({"params": N.astype(int), "tokens": D.astype(int), "loss": LAW.loss(N, D) * noise})


def written(frame: pd.DataFrame, path: Path, **how: object) -> Path:
    frame.to_csv(path, index=False, **how)  # type: ignore[call-overload]
    return path


def same(read: pd.DataFrame, expected: pd.DataFrame | None = None) -> bool:
    """Return True if the usable rows are the expected ones; by default those of :func:`base`."""
    used = read[read["excluded"] == ""]
    columns = ["params", "tokens", "loss"]
    expected = base() if expected is None else expected
    return len(used) == len(expected) and np.allclose(used[columns], expected[columns], rtol=1e-12)


def notes(table: pd.DataFrame) -> str:
    return "\n".join(table.attrs["read_as"])


# Files


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pyarrow.compress(content, codec="zstd", asbytes=True)),
    ],
)
@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_compressed_files(tmp_path: Path, kind: str, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"runs{kind}{suffix}"
    text = base().to_csv(index=False) if kind == ".csv" else base().to_json(orient="records", lines=True)
    path.write_bytes(pack(text.encode()))
    assert same(read_runs(path), read_runs(io.BytesIO(text.encode())))
    path.write_bytes(text.encode())
    with pytest.raises(InputError, match="not compressed as its suffix"):
        read_runs(path)
    path.write_bytes(pack(text.encode())[:-20])
    with pytest.raises(InputError, match="runs"):
        read_runs(path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_standard_input_tells_its_format_by_itself(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content = {
        "csv": lambda: base().to_csv(index=False).encode(),
        "tsv": lambda: base().to_csv(index=False, sep="\t").encode(),
        "json": lambda: json.dumps(base().to_dict("records")).encode(),
        "jsonl": lambda: "\n".join(map(json.dumps, base().to_dict("records"))).encode(),
        "parquet": lambda: base().to_parquet(),
    }[kind]()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert same(read_runs("-"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match="standard input is empty"):
        read_runs("-")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = base().assign(note="é").to_csv(index=False)
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode(encoding))
    read = read_runs(path)
    assert same(read)
    assert set(read["note"]) == {"é"}


@pytest.mark.parametrize("orient", ["records", "columns", "list"])
def test_json_arrays_and_columns(tmp_path: Path, orient: str) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(base().to_dict("list")) if orient == "list" else base().to_json(orient=orient))
    assert same(read_runs(path), pd.DataFrame(json.loads(base().to_json(orient="records"))))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("runs.json", '[{"params": 1}, 2]', "entry 2 is not an object"),
        ("runs.json", '{"params": [1, 2], "loss": [3]}', "different lengths"),
        ("runs.json", "[1", "the file is not JSON"),
        ("runs.jsonl", '{"loss": 3, "loss": 4}\n', "line 1 has the key 'loss' twice"),
        ("runs.jsonl", '{"loss": 3}\n{"lo', "line 2 is not JSON"),
        ("runs.json", "[" * 100_000, "nested too deeply"),
        ("runs.xlsx", "PK\x03\x04", "a spreadsheet or an archive; save the table of runs as CSV"),
        ("runs.csv", "", "no rows"),
        ("runs.csv", "params,tokens,loss\n2000000,100000000,8,1\n", "more cells than the header"),
        ("runs.csv", 'params,tokens,loss\n1,2,"3\n', "runs.csv"),
    ],
)
def test_what_broken_files_are_told(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_runs(path)


def test_nested_objects_by_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    rows = [
        {"config": {"n": row.params, "data": {"seen": row.tokens}}, "summary": {"val/loss": row.loss}}
        for row in base().itertuples()
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert same(read_runs(path, parse_mapping("N=config.n,D=config.data.seen,L=summary.val/loss")))
    table = base().assign(run="a")
    pyarrow_path = tmp_path / "runs.parquet"
    pd.DataFrame(
        {"config": table[["params", "tokens"]].to_dict("records"), "loss": table["loss"]}
    ).to_parquet(pyarrow_path)
    assert same(read_runs(pyarrow_path))


def test_integers_of_any_size_and_empty_cells_in_words(tmp_path: Path) -> None:
    rows = base().to_dict("records")
    for row in rows:
        row["flops"] = 6 * row["params"] * row["tokens"] * 10**6
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    read = read_runs(path)
    assert same(read)
    assert read["flops"].iloc[-1] == pytest.approx(6 * 80e6 * 3e9 * 1e6)
    rows[3]["loss"], rows[7]["loss"] = "N/A", "Infinity"
    path.write_text("\n".join(map(json.dumps, rows)))
    read, from_csv = read_runs(path), read_runs(written(pd.DataFrame(rows), tmp_path / "runs.csv"))
    assert read["excluded"][3] == from_csv["excluded"][3] == "no loss"
    assert read["excluded"][7] == from_csv["excluded"][7] == "the loss is infinite: the run diverged"
    assert (read["excluded"] == "").sum() == 18


# Numbers


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_decimal_commas_are_named_and_can_be_read(tmp_path: Path, separator: str) -> None:
    frame = base().round({"loss": 3})
    path = written(frame, tmp_path / "runs.tsv", sep=separator, decimal=",")
    with pytest.raises(InputError, match=r"row 1, column 'loss': '\d,\d+' has a comma.*add --decimal ,"):
        read_runs(path)
    assert same(read_runs(path, decimal=","), frame)
    as_frame = frame.assign(loss=frame["loss"].map(lambda loss: str(loss).replace(".", ",")))
    with pytest.raises(InputError, match="decimal comma"):
        validate(as_frame)
    assert same(validate(as_frame, decimal=","), frame)


def test_a_comma_before_three_digits_may_be_two_things() -> None:
    with pytest.raises(InputError, match=r"'8,156' has a comma.*write 8\.156, or 8156 if it separates"):
        validate(base().assign(loss=["8,156", *base()["loss"][1:]]))
    with pytest.raises(InputError, match=r"'1,5B' has a comma.*write 1\.5B"):
        validate(base().assign(tokens=["1,5B", *base()["tokens"][1:]]))


# Headers


@pytest.mark.parametrize(
    "headers",
    [
        ("params", " tokens", " loss "),
        ("N", "D", "L"),
        ("N_S", "D_S", "L_S"),
        ("Model Size", "Tokens Seen", "val/loss"),
        ("config.n_params", "config.train_tokens", "summary.eval_loss"),
        ("non_embedding_params", "consumed_tokens", "Validation Loss"),
        ("\ufeffparams", "tokens", "loss (nats/token)"),
    ],
)
def test_symbols_and_other_names(tmp_path: Path, headers: tuple[str, str, str]) -> None:
    frame = base().set_axis(list(headers), axis=1)
    read = read_runs(written(frame, tmp_path / "runs.csv"))
    assert same(read)
    assert same(validate(frame))
    assert same(fit_table := validate(read))
    assert fit_table.attrs["read_as"] == read.attrs["read_as"]
    if headers[0].strip() != "params" and "\ufeff" not in headers[0]:
        assert f"params is {headers[0]!r}" in notes(read)


def test_letters_of_other_meaning() -> None:
    """L and D beside a loss and tokens may be layers and width, or other losses and tokens."""
    assert same(validate(base().assign(L=12, D=768)))
    with pytest.raises(InputError, match="'loss' and 'L' all match loss"):
        validate(base().assign(L=base()["loss"] + 0.1))
    with pytest.raises(InputError, match="'loss' and 'L_S' all match loss"):
        validate(base().assign(L_S=2))


@pytest.mark.parametrize("name", ["gpt2, wd=0.1 - val/loss", 'a "b"', "loss*2", "x=y"])
def test_any_header_can_be_named(tmp_path: Path, name: str) -> None:
    frame = base().rename(columns={"loss": name})
    path = written(frame, tmp_path / "runs.csv")
    with pytest.raises(InputError, match="no column 'loss'"):
        read_runs(path)
    quoted = name.replace('"', '""')
    assert same(read_runs(path, parse_mapping(f'N=params,L="{quoted}"')))
    assert same(validate(frame, {"L": name}))
    with pytest.raises(InputError, match=r"a quoted name must end with a quotation mark|must be a list like"):
        parse_mapping('L="a')


def test_what_is_to_be_typed_is_said_as_it_is_typed(tmp_path: Path) -> None:
    path = written(base().rename(columns={"loss": "gpt2, wd=0.1 - val/loss"}), tmp_path / "runs.csv")
    with pytest.raises(InputError) as caught:
        read_runs(path)
    assert """--map 'L="gpt2, wd=0.1 - val/loss"'""" in str(caught.value)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    twice = pd.concat([base().assign(loss=base()["loss"] - 0.25), base()["loss"]], axis=1)
    path = written(twice, tmp_path / "runs.csv")
    for read in (lambda: read_runs(path), lambda: validate(twice)):
        with pytest.raises(InputError, match=r"two columns named 'loss'.*--map 'L=loss#2'"):
            read()
    assert same(read_runs(path, {"L": "loss#2"}))
    assert same(validate(twice, {"L": "loss#2"}))
    path.write_text(path.read_text().replace("params,tokens,loss,loss", "params,tokens,color,color"))
    with pytest.raises(InputError, match="no column 'loss'"):
        read_runs(path)


def test_two_names_of_one_column() -> None:
    frame = base().assign(val_loss=base()["loss"] + 0.2)
    with pytest.raises(InputError, match=r"'loss' and 'val_loss' all match loss; .*--map L=loss"):
        validate(frame)
    assert same(validate(frame, {"L": "loss"}))
    assert same(validate(base().assign(train_loss=1.0, params_total=9)))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("method", ["adamw", "muon"], "'method' names no distillation"),
        ("kind", ["dense", "dense"], "'kind' holds neither"),
        ("compute", ["8xH100", "8xH100"], "'compute' holds no numbers"),
        ("seconds", ["0:30:00", "1:30:00"], "'seconds' holds no numbers"),
        ("status", ["tier1", "tier2"], "'status' does not describe"),
        ("epochs", ["one", "two"], "'epochs' holds no numbers"),
        ("flops", [True, False], "'flops' holds no numbers"),
    ],
)
def test_foreign_meanings_of_our_names(tmp_path: Path, column: str, values: list[object], said: str) -> None:
    frame = base().assign(**{column: values * 10})
    for read in (read_runs(written(frame, tmp_path / "runs.csv")), validate(frame)):
        assert same(read)
        assert said in notes(read)
        assert set(read["kind"]) == {"supervised"}
        assert f"not used: column {said.split(' ')[0]}" in str(check(read))
    left_out = validate(frame, parse_mapping(f"{column}=", absent=True))
    assert same(left_out)
    assert same(validate(frame.assign(kind="dense", method="adamw")))
    assert f"not used: columns '{column}'" in notes(left_out)


def test_a_foreign_column_beside_ours_is_no_excuse() -> None:
    """Columns that may describe a distillation, or hold some numbers, are not ignored."""
    with pytest.raises(InputError, match=r"'teacher'; it is .*--map kind="):
        validate(base().assign(kind=["teacher", "student"] * 10))
    with pytest.raises(InputError, match=r"all 20 distillations .*method"):
        validate(base().assign(method="forward-kl"))
    with pytest.raises(InputError, match="row 2, column 'compute': 'many' is not a number"):
        validate(base().assign(compute=["1e18", "many"] * 10))
    with pytest.raises(InputError, match=r"run '0' .*several params.*--map run="):
        validate(base().assign(run=[0, 1] * 10))
    assert same(validate(base().assign(run=[0, 1] * 10), {"run": ""}))


# Losses


def test_perplexity_by_its_name() -> None:
    frame = base().assign(val_ppl=np.exp(base()["loss"])).drop(columns="loss")
    with pytest.raises(InputError, match=r"--map L=val_ppl --loss-unit perplexity"):
        validate(frame)
    with pytest.raises(InputError, match=r"'val_ppl' names the unit perplexity.*--loss-unit perplexity"):
        validate(frame, {"L": "val_ppl"})
    assert same(validate(frame, {"L": "val_ppl"}, loss_unit="perplexity"))
    assert same(read := validate(frame, loss_unit="perplexity"))
    assert "logarithms of perplexities" in notes(read)
    assert same(validate(read))
    with pytest.raises(InputError, match="names the unit perplexity, but --loss-unit is bits/token"):
        validate(frame, {"L": "val_ppl"}, loss_unit="bits/token")


def large() -> pd.DataFrame:
    """Runs of real sizes, whose perplexities (9 to 20) are no impossible losses."""
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e8, 8e9, 5), np.geomspace(1e10, 3e11, 4)))
    return pd.DataFrame({"params": N, "tokens": D, "loss": 1.69 + 406 / N**0.34 + 410 / D**0.28})


def test_perplexity_by_its_values() -> None:
    plain = large().assign(loss=np.exp(large()["loss"]))
    assert plain["loss"].max() < 20
    with pytest.raises(InputError, match=r"times those of language models.*--loss-unit perplexity"):
        validate(plain)
    assert same(validate(plain, loss_unit="perplexity"), large())
    stated = validate(plain, loss_unit="nats/token")
    assert same(validate(stated), plain[plain["loss"] < 12.4])
    with pytest.raises(InputError, match="a perplexity is at least 1"):
        validate(plain.assign(loss=0.5), loss_unit="perplexity")


def test_bits_per_byte() -> None:
    frame = large().assign(val_bpb=large()["loss"] / np.log(2) / 4.2).drop(columns="loss")
    with pytest.raises(InputError, match=r"'val_bpb' names the unit bits/byte.*--bytes-per-token 4\.2"):
        validate(frame, {"L": "val_bpb"})
    assert same(validate(frame, {"L": "val_bpb"}, bytes_per_token=4.2), large())
    per_byte = validate(frame, bytes_per_token=1)
    assert same(per_byte, large().assign(loss=large()["loss"] / 4.2))
    with pytest.raises(InputError, match="need --bytes-per-token"):
        validate(frame, loss_unit="bits/byte")
    with pytest.raises(InputError, match="converts losses in bits/byte, not in perplexity"):
        validate(frame, loss_unit="perplexity", bytes_per_token=4.2)
    with pytest.raises(InputError, match="one of nats/token, bits/token, bits/byte, perplexity"):
        validate(frame, loss_unit="bpb")


def test_losses_above_uniform_guessing() -> None:
    frame = base().assign(vocab=512, loss=np.linspace(3.0, 6.4, 20))
    read = validate(frame)
    assert (read["excluded"] != "").sum() == 1
    assert "above 6.238 nats/token, a uniform guess over 512 tokens" in read["excluded"].iloc[-1]
    assert "(row 20)" in str(check(read))
    with pytest.raises(InputError, match=r"20 of 20 losses are \(rows 1, 2, .*--map vocab="):
        validate(frame.assign(loss=base()["loss"] + 5))
    assert same(
        validate(base().assign(vocab=512, loss=base()["loss"] + 1), {"vocab": ""}),
        base().assign(loss=base()["loss"] + 1),
    )


def test_losses_that_are_whole_numbers_are_none() -> None:
    with pytest.raises(InputError, match="every value is a whole number"):
        validate(base().drop(columns="loss").assign(L=[2, 4, 6, 8, 3] * 4))


# Compute and units


@pytest.mark.parametrize(
    ("unit", "scale"), [("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("PFLOP-days", 8.64e19)]
)
def test_compute_in_another_unit(unit: str, scale: float) -> None:
    frame = base().assign(C=6.0 * base()["params"] * base()["tokens"] / scale).drop(columns="tokens")
    with pytest.raises(InputError, match=r"column 'C' \(compute\).*--map 'C=C\*"):
        validate(frame)
    assert same(validate(frame, {"C": f"C*{scale}"}))
    assert same(validate(frame.rename(columns={"C": f"C ({unit})"})))
    with pytest.raises(InputError, match="a unit must be a positive number"):
        validate(frame, {"C": "C*-1"})


def test_compute_that_is_not_needed_is_not_believed() -> None:
    read = validate(base().rename(columns={"params": "N"}).assign(C=1e-5))
    assert same(read)
    assert "not used: column 'C' (compute) is" in notes(read)
    frame = base().assign(compute=6.0 * base()["params"] * base()["tokens"] / 1e18).astype({"tokens": float})
    frame.loc[3, "tokens"] = np.nan
    with pytest.raises(InputError, match=r"cannot replace missing tokens.*EFLOP"):
        validate(frame)


@pytest.mark.parametrize("column", ["params", "tokens"])
@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
def test_units_without_a_name_are_refused_and_can_be_said(column: str, scale: float) -> None:
    frame = base().assign(**{column: base()[column] / scale})
    with pytest.raises(InputError) as caught:
        validate(frame)
    assert f"{column}*1" in str(caught.value)
    assert same(validate(frame, {column: f"{column}*{scale}"}))


@pytest.mark.parametrize(
    ("header", "scale"),
    [
        *(("params (M)", 1e6), ("params_millions", 1e6), ("N [B]", 1e9), ("Parameters in billions", 1e9)),
        *(("n_params (x1e6)", 1e6), ("model_size_m", 1e6), ("params (k)", 1e3)),
    ],
)
def test_units_in_headers(header: str, scale: float) -> None:
    frame = base().assign(params=base()["params"] / scale).rename(columns={"params": header})
    assert same(read := validate(frame))
    assert f"params is {header!r} times {scale:g}" in notes(read)
    own = frame.assign(**{header: [f"{value}M" for value in base()["params"] / 1e6]})
    assert same(validate(own))


def test_a_rare_ratio_can_be_confirmed() -> None:
    frame = base().assign(tokens=base()["tokens"] * 1000)
    with pytest.raises(InputError, match=r"tokens per parameter.*--map 'N=params\*1,D=tokens\*1'"):
        validate(frame)
    read = validate(frame, {"N": "params*1", "D": "tokens*1"})
    assert same(validate(read), frame)
    with pytest.raises(InputError, match="tokens per parameter"):
        validate(frame, {"D": "tokens*1"})


def test_the_unit_of_one_header_does_not_vouch_for_the_other_column() -> None:
    frame = base().assign(params=base()["params"] / 1e3, tokens=base()["tokens"] / 1e9)
    with pytest.raises(InputError, match=r"tokens per parameter.*'N=params\*1000'.*D=tokens \(B\)\*1e9'"):
        validate(frame.rename(columns={"tokens": "tokens (B)"}))


def test_a_loss_that_contradicts_its_perplexity() -> None:
    for name, values in (("val_ppl", np.exp(base()["loss"])), ("val_bpb", base()["loss"] / 3)):
        assert same(validate(base().assign(**{name: values})))
        other = base().assign(**{name: values}, loss=base()["loss"] - 0.2)
        with pytest.raises(InputError, match=f"'loss' and '{name}' measure different losses.*--map L={name}"):
            validate(other)
        stated = validate(other, {"L": "loss"})
        assert same(validate(stated), other)


# Rows


def test_evaluations_before_training_are_not_used() -> None:
    start = base().assign(run=[f"r{i}" for i in range(20)])
    frame = pd.concat([start.assign(tokens=0, loss=10.9), start]).sort_values(["run", "tokens"])
    read = validate(frame)
    assert same(read, frame[frame["tokens"] > 0])
    assert (read["excluded"] == "an evaluation before training (0 tokens)").sum() == 20


def test_unique_tokens_are_epochs() -> None:
    frame = base().assign(unique_tokens=1e8)
    read = validate(frame)
    np.testing.assert_allclose(read["epochs"], frame["tokens"] / 1e8)
    said = (
        [str(f) for f in check(read).findings],
        [
            str(f)
            for f in check(
                validate(frame.assign(epochs=frame["tokens"] / 1e8).drop(columns="unique_tokens"))
            ).findings
        ],
    )
    assert said[0] == said[1]
    assert any("repeat their text more than 4 times" in each for each in said[0])


# Checkpoints and repeats


def alarmed(frame: pd.DataFrame, mapping: dict[str, str] | None = None) -> bool:
    return "checkpoints of one run" in str(check(validate(frame, mapping)))


def test_the_checkpoint_alarm_is_for_checkpoints() -> None:
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.linspace(1e9, 2e10, 20)))
    checkpoints = pd.DataFrame({"params": N, "tokens": D, "loss": LAW.loss(N, D)})
    assert alarmed(checkpoints)
    assert not alarmed(checkpoints, {"run": ""})
    N, C = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 9), np.geomspace(1e17, 1e20, 9)))
    profiles = pd.DataFrame({"params": N, "tokens": C / (6 * N), "loss": LAW.loss(N, C / (6 * N))})
    assert profiles.groupby("params")["tokens"].nunique().max() >= 8
    assert not alarmed(profiles)
    texts = checkpoints.assign(unique_tokens=checkpoints["tokens"] / 2)
    assert not alarmed(texts)
    assert not alarmed(checkpoints.assign(epochs=2.0))
    assert alarmed(checkpoints.assign(unique_tokens=1e11))


def test_two_evaluation_sets_in_long_form() -> None:
    one = base().assign(evaluated="c4")
    both = pd.concat([one, one.assign(evaluated="wikitext", loss=one["loss"] * 1.12)], ignore_index=True)
    said = str(check(validate(both)))
    assert "equal configurations differ by 8 % (sd of ln loss, 40 rows of 20 configurations)" in said
    assert "column 'evaluated' ('c4', 'wikitext') explains 100 % of that variance" in said
    unnamed = str(check(validate(both.drop(columns="evaluated"))))
    assert "difference is nearly constant" in unnamed
    found = fit(both.drop(columns="evaluated"), draws=20, starts=8, held_out=False)
    assert any("what the residuals of their means allow" in str(each) for each in found.findings)
    assert "replicates of one configuration differ by" in found.summary()
    with pytest.raises(
        InputError, match=r"different losses after the same tokens .*they differ in 'evaluated'"
    ):
        validate(both.assign(run=[f"r{i % 20}" for i in range(40)]))


def test_seeds_are_no_second_evaluation_set() -> None:
    rng = np.random.default_rng(0)
    seeds = pd.concat(
        [
            base().assign(seed=seed, loss=base()["loss"] * np.exp(0.02 * rng.standard_normal(20)))
            for seed in (0, 1)
        ]
    )
    report = check(validate(seeds))
    assert "equal configurations differ by" in str(report)
    assert not report.findings
    found = fit(seeds, draws=20, starts=8, held_out=False)
    assert not any("equal configuration" in str(each) for each in found.findings)


# Teachers


def taught(teacher: object, names: list[object], students: int = 16) -> pd.DataFrame:
    """The base runs, and students under a teacher."""
    alone = base().assign(run=names, teacher=None)
    pupils = base().iloc[:students].assign(run=[f"s{i}" for i in range(students)], teacher=teacher)
    return pd.concat([alone, pupils.assign(loss=pupils["loss"] * 0.985)], ignore_index=True)


@pytest.mark.parametrize("door", ["file", "frame", "jsonl"])
def test_teachers_by_integer_ids(tmp_path: Path, door: str) -> None:
    frame = taught(20, list(range(1, 21)))
    frame["run"] = range(1, 37)
    frame["teacher"] = frame["teacher"].astype(float)
    if door == "file":
        read = read_runs(written(frame, tmp_path / "runs.csv"))
    elif door == "jsonl":
        frame.to_json(tmp_path / "runs.jsonl", orient="records", lines=True)
        read = read_runs(tmp_path / "runs.jsonl")
    else:
        read = validate(frame)
    assert (read["excluded"] == "").all()
    assert (read["kind"] == "distillation").sum() == 16
    assert set(read["teacher_loss"].dropna().round(6)) == {round(base()["loss"].iloc[19], 6)}


def test_teachers_by_another_name() -> None:
    frame = taught("big", [f"id{i}" for i in range(20)])
    frame["label"] = ["big" if i == 19 else f"run of {i}" for i in range(36)]
    read = validate(frame)
    assert (read["excluded"] == "").all()
    assert "teachers are identified by column 'label'" in notes(read)


def test_an_excluded_row_is_no_teacher() -> None:
    frame = taught("T", [*(f"r{i}" for i in range(19)), "T"]).assign(status="finished")
    crashed = frame.iloc[[19]].assign(tokens=2_999_000_000, loss=9.0, status="crashed")
    last = frame.iloc[[19]].assign(tokens=3_000_000_001, loss=9.0, status="crashed")
    read = validate(pd.concat([crashed, frame, last], ignore_index=True))
    assert set(read["teacher_loss"].dropna()) == {base()["loss"].iloc[19]}
    two = frame.assign(teacher=frame["teacher"].where(frame.index < 30, "gone"))
    read = validate(two)
    assert (read["excluded"] == "its teacher 'gone' is not in the table").sum() == 6
    frame.loc[19, "status"] = "crashed"
    with pytest.raises(
        InputError, match=r"the teachers of all 16 distillations are missing.*'T' cannot be used"
    ):
        validate(frame)


def test_a_join_that_loses_every_distillation_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"the teachers of all 16 distillations are missing: column 'teacher' names 'x'"
    ):
        validate(taught("x", [f"r{i}" for i in range(20)]))


def seeds_of_a_teacher(losses: tuple[float, ...], student_seeds: tuple[int, ...]) -> pd.DataFrame:
    alone = base().assign(run=[f"r{i}" for i in range(20)], seed=0, teacher=None)
    teachers = pd.DataFrame(
        {"params": 2e8, "tokens": 6e9, "loss": losses, "run": "T", "seed": range(len(losses))}
    )
    pupils = [
        base().iloc[:12].assign(run=[f"s{i}-{seed}" for i in range(12)], seed=seed, teacher="T")
        for seed in student_seeds
    ]
    return pd.concat([alone, teachers, *pupils], ignore_index=True)


def test_each_student_has_the_teacher_of_its_own_seed() -> None:
    read = validate(seeds_of_a_teacher((2.60, 2.90, 2.50), (0, 1, 2)))
    pupils = read[read["teacher"] == "T"]
    assert dict(pupils.groupby("seed")["teacher_loss"].first()) == {0: 2.60, 1: 2.90, 2: 2.50}
    assert "36 students have the loss of their teacher with the same seed" in notes(read)


def test_seeds_that_are_not_paired_are_averaged_or_refused() -> None:
    with pytest.raises(InputError, match=r"'T' has 3 runs with different losses \(2\.6, 2\.9, 2\.5\)"):
        validate(seeds_of_a_teacher((2.60, 2.90, 2.50), (7,)))
    read = validate(seeds_of_a_teacher((2.60, 2.61, 2.62), (7,)))
    assert read["teacher_loss"].dropna().unique() == pytest.approx([2.61], rel=1e-4)
    assert "12 students have the mean loss of the 3 runs called 'T'" in notes(read)


def test_a_student_names_its_teachers_checkpoint() -> None:
    frame = taught("T", [*(f"r{i}" for i in range(16)), *["T"] * 4]).assign(teacher_tokens=np.nan)
    frame.loc[20:, "teacher_tokens"] = [1e9, 5e9] * 8
    read = validate(frame)
    assert set(read["teacher_loss"].dropna()) == {base()["loss"].iloc[18]}
    assert (read["excluded"] == "its teacher 'T' has no row at teacher_tokens").sum() == 8
