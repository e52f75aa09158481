"""The base install has no pyarrow: everything but Parquet and Zstandard files is read without it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import fits
from scaling.errors import InputError, MissingExtra
from sweeps.data.sources import source_of

ROOT = Path(__file__).parents[3]
ADVICE = r"needs pyarrow: pip install 'distlaw\[parquet\]'"
WITHOUT = """
import bz2, gzip, io, lzma, sys
sys.modules["pyarrow"] = None
import fits, sweeps
from fits.datasets import chinchilla
for name in ("permissive", "methods", "methods-tuned"):
    print(name, len(fits.validate(sweeps.shipped(name))))
for module in (bz2, gzip, lzma):
    content = module.compress(b"params,tokens,loss\\n1e6,1e8,4\\n2e6,2e8,3.5\\n")
    print(module.__name__, *fits.read_runs(io.BytesIO(content))["loss"])
print(f"{fits.fit(chinchilla(), draws=20, held_out=False).calibration.supervised.E:.2f}")
"""


@pytest.fixture
def no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)


def table() -> pd.DataFrame:
    return pd.DataFrame({"params": [1e6, 2e6], "tokens": [1e8, 2e8], "loss": [4.0, 3.5]})


@pytest.mark.parametrize("name", ["runs.parquet", "runs.csv.zst", "unnamed"])
def test_the_extra_is_named(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    path = tmp_path / name
    if name == "runs.csv.zst":
        path.write_bytes(b"\x28\xb5\x2f\xfd")
    else:
        table().to_parquet(path)
    request.getfixturevalue("no_pyarrow")
    with pytest.raises(InputError, match=rf"{path.name}: a (Parquet|Zstandard) file.* {ADVICE}"):
        fits.read_runs(path)


def test_a_corpus_in_parquet_names_the_extra(tmp_path: Path, no_pyarrow: None) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=rf"corpus.source: .*a\.parquet {ADVICE}"):
        list(source_of(str(tmp_path / "a.parquet")).documents())


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_damaged_compressed_tables_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs.csv.{suffix}"
    content = {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix].compress(table().to_csv(index=False).encode())
    path.write_bytes(content[:20] + bytes(10) + content[30:])
    with pytest.raises(InputError, match=f"runs.csv.{suffix}: not a readable table"):
        fits.read_runs(path)


def test_tables_are_read_and_fitted_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *read, asymptote = done.stdout.splitlines()
    assert read == [
        *("permissive 209", "methods 642", "methods-tuned 54"),
        *("bz2 4.0 3.5", "gzip 4.0 3.5", "lzma 4.0 3.5"),
    ]
    assert 1.5 < float(asymptote) < 2.0


def test_the_command_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    code = "import sys; sys.modules['pyarrow'] = None; from distlaw.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "fit", "runs.parquet"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: runs.parquet: a Parquet file needs pyarrow: pip install 'distlaw[parquet]'\n"
    )
