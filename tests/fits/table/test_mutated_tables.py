"""Two hundred mutations of one table: each is read as the table it was, or refused; none as another one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits import fit, read_runs
from fits.table.columns.column_names import SYMBOLS, SYNONYMS
from scaling import InputError, SupervisedLaw
from scaling.laws import coefficients

Rng = np.random.Generator
LAW = SupervisedLaw(E=1.6, A=200.0, B=3000.0, alpha=0.34, beta=0.4)
OURS = ("params", "tokens", "loss")
TABLES = 200
WORDS = {1e3: ("k", "thousands"), 1e6: ("M", "millions"), 1e9: ("B", "billions")}


def base() -> pd.DataFrame:
    """Twenty supervised runs whose losses have three decimals."""
    N, D = (
        axis.ravel() for axis in np.meshgrid([2e6, 5e6, 12e6, 3e7, 8e7], [1e8, 3e8, 1e9, 3e9], indexing="ij")
    )
    noise = np.exp(0.003 * np.random.default_rng(5).standard_normal(len(N)))
    return pd.DataFrame({"params": N, "tokens": D, "loss": np.round(LAW.loss(N, D) * noise, 3)})


def column(frame: pd.DataFrame, ours: str) -> str | None:
    """The header that now holds a column of the base table; None where another mutation took it away."""
    return next((name for name in frame.columns if name == ours or frame.attrs.get(name) == ours), None)


def renamed(frame: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    ours = frame.attrs.get(old, old)
    frame = frame.rename(columns={old: new})
    frame.attrs[new] = ours
    return frame


def rename(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """Known synonyms and symbols, in any case and punctuation."""
    symbols = {name: [s for s, ours in SYMBOLS.items() if ours == name] for name in OURS}
    for ours in OURS:
        old = column(frame, ours)
        if old != ours or rng.random() < 0.3:
            continue
        name = str(rng.choice([*SYNONYMS[ours], *symbols[ours]]))
        if name not in SYMBOLS:
            styles: list[Callable[[str], str]] = [
                str.upper, str.title, lambda s: s.replace("_", " "), lambda s: s.replace("_", "/"),
                lambda s: f"config.{s}", lambda s: f" {s} ", str,
            ]  # fmt: skip
            name = styles[rng.integers(len(styles))](name)
        frame = renamed(frame, ours, name)
    return frame


def shuffle(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    attrs = dict(frame.attrs)
    frame = frame.sample(frac=1, random_state=int(rng.integers(1000)))[list(rng.permutation(frame.columns))]
    frame.attrs = attrs
    return frame


def duplicate(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    again = frame.iloc[rng.integers(len(frame), size=7)]
    attrs = dict(frame.attrs)
    frame = pd.concat([frame, again], ignore_index=True)
    frame.attrs = attrs
    return frame


def scaled(frame: pd.DataFrame, rng: Rng, *, named: bool) -> pd.DataFrame:
    """One column, or both, in thousands, millions or billions."""
    for ours in (("params",), ("tokens",), ("params", "tokens"))[rng.integers(3)]:
        old, scale = column(frame, ours), float(rng.choice([1e6, 1e9, 1e3]))
        if old != ours or not pd.api.types.is_numeric_dtype(frame[old]):
            continue
        if not named and scale == 1e3 and "thousands" in frame.attrs:
            continue  # both in thousands are another sweep, of small models
        frame = frame.assign(**{old: frame[old] / scale})
        if named:
            word = str(rng.choice(WORDS[scale]))
            style = str(rng.choice(["{} ({})", "{} [{}]", "{}_{}", "{} in {}"]))
            frame = renamed(frame, old, style.format(old, word))
        elif scale == 1e3:
            frame.attrs["thousands"] = "one"
    return frame


def in_unit(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return scaled(frame, rng, named=True)


def in_unsaid_unit(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return scaled(frame, rng, named=False)


def as_quantities(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """143M, in some of the rows."""
    for ours in ("params", "tokens"):
        name = column(frame, ours)
        if name and pd.api.types.is_numeric_dtype(frame[name]) and frame[name].min() > 1e5:
            some = rng.random(len(frame)) < 0.5
            text = [f"{v / 1e6!r}M" if s else repr(v) for v, s in zip(frame[name], some, strict=True)]
            frame = frame.assign(**{name: text})
    return frame


def decimal_commas(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """All of the loss, and whatever else is not whole."""
    for name in frame.columns:
        if pd.api.types.is_float_dtype(frame[name]):
            text = [repr(v).removesuffix(".0").replace(".", ",") for v in frame[name]]
            frame = frame.assign(**{name: text})
    return frame


def grouped(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """2,000,000."""
    name = column(frame, str(rng.choice(["params", "tokens"])))
    if name is None or not pd.api.types.is_numeric_dtype(frame[name]):
        return frame
    return frame.assign(**{name: [f"{v:,.0f}" if v == round(v) else repr(v) for v in frame[name]]})


def other_loss(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """Another unit of the loss, under its name."""
    name = column(frame, "loss")
    if name != "loss" or not pd.api.types.is_numeric_dtype(frame[name]):
        return frame
    how = [("val_ppl", np.exp), ("loss_bits", lambda x: x / np.log(2)), ("val_bpb", lambda x: x / 4)]
    new, convert = how[rng.integers(len(how))]
    return renamed(frame.assign(loss=convert(frame["loss"])), "loss", new)


def second_loss(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """A training loss beside it, which is called alike."""
    name = column(frame, "loss")
    if name is None or not pd.api.types.is_numeric_dtype(frame[name]):
        return frame
    values = frame[name] - 0.2
    frame.insert(0, str(rng.choice(["loss", "train_loss", "eval_loss"])), values, allow_duplicates=True)
    return frame


def foreign(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """Columns that are called as ours by chance."""
    columns = {
        "method": "adamw", "kind": "dense", "compute": "8xH100", "seconds": "0:30:00", "status": "tier1",
        "layers": 12, "wd": 0.1, "notes": "a, b; c",
    }  # fmt: skip
    for name in rng.choice(list(columns), size=3, replace=False):
        frame = frame.assign(**{str(name): columns[str(name)]})
    return frame


def unused_rows(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """Evaluations at step 0 and runs without a loss."""
    tokens, loss = column(frame, "tokens"), column(frame, "loss")
    if tokens is None or loss is None:
        return frame
    attrs = dict(frame.attrs)
    start, lost = frame.head(3).astype(object), frame.tail(2).astype(object)
    start[tokens], lost[loss] = 0, str(rng.choice(["", "N/A", "nan", "NULL", "-"]))
    frame = pd.concat([start, frame.astype(object), lost], ignore_index=True).infer_objects()
    frame.attrs = attrs
    return frame


MUTATIONS: tuple[Callable[[pd.DataFrame, Rng], pd.DataFrame], ...] = (
    rename, rename, shuffle, duplicate, in_unit, in_unsaid_unit, as_quantities, decimal_commas, grouped,
    other_loss, second_loss, foreign, unused_rows,
)  # fmt: skip


def write(frame: pd.DataFrame, path: Path, rng: Rng) -> Path:
    """In one of the formats, encodings and compressions that tables come in."""
    kind = str(rng.choice([".csv", ".csv", ".csv", ".tsv", ".jsonl", ".json", ".txt"]))
    if kind.startswith(".json") and frame.columns.is_unique:
        records = json.loads(frame.to_json(orient="records", double_precision=15))
        text = json.dumps(records) if kind == ".json" else "\n".join(map(json.dumps, records))
    else:
        separator = "\t" if kind == ".tsv" else str(rng.choice([",", ",", ";"]))
        text = frame.to_csv(index=False, sep=separator)
        kind = kind if not kind.startswith(".json") else ".csv"
    encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]))
    content, packed = text.encode(encoding), rng.random() < 0.2
    path = path / f"runs{kind}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def mutated(number: int, folder: Path) -> Path:
    """The table of this number: one to four mutations of the base, written anyhow."""
    rng, frame = np.random.default_rng(number), base()
    for mutation in rng.choice(len(MUTATIONS), size=rng.integers(1, 5), replace=False):
        frame = MUTATIONS[int(mutation)](frame, rng)
    folder.mkdir()
    return write(frame, folder, rng)


def used_rows(table: pd.DataFrame) -> np.ndarray:
    """(rows, 3): size, tokens and loss of the usable rows, in one order."""
    used = table.loc[table["excluded"] == "", list(OURS)]
    return used.sort_values(list(OURS)).to_numpy(np.float64)


def law_of(table: pd.DataFrame) -> dict[str, float]:
    return coefficients(fit(table, gamma=1.0, starts=4, draws=20, held_out=False).supervised)


def test_no_mutation_is_read_as_another_table(tmp_path: Path) -> None:
    expected, read, refused = used_rows(read_runs(base())), [], 0
    for number in range(TABLES):
        path = mutated(number, tmp_path / str(number))
        try:
            table = read_runs(path)
        except InputError as error:
            assert path.name in str(error)
            refused += 1
            continue
        assert set(table["kind"]) == {"supervised"}
        found = used_rows(table)
        assert found.shape == expected.shape, number
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=str(number))
        read.append(table)
    assert 60 < refused < 140
    law = law_of(read_runs(base()))
    for table in read[::10]:
        assert law_of(table) == pytest.approx(law, rel=1e-9)
