"""Token ids of other trainers: read as they were meant, or refused."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from token_files import write_llm_c, write_megatron
from tokenizers import Tokenizer, models

from scaling.errors import InputError
from sweeps.data.corpus import fingerprint_of, resolve_corpus, tokens_of
from sweeps.data.text_size import estimated_size
from sweeps.data.tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer
from sweeps.estimate.text_warnings import text_warnings
from sweeps.execute.submission import _copy_texts
from sweeps.spec.corpus import Corpus

END = 0
Documents = list[list[int]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "bpe"
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(200)]
    save_tokenizer(train_tokenizer([" ".join(words)], 300), folder)
    return folder


@pytest.fixture(scope="module")
def documents() -> Documents:
    draw = np.random.default_rng(0)
    return [draw.integers(1, 300, size=draw.integers(5, 60)).tolist() for _ in range(400)]


def stream(documents: Documents) -> list[int]:
    return [id_ for ids in documents for id_ in [*ids, END]]


def plain(folder: Path, documents: Documents) -> str:
    np.array(stream(documents), dtype=np.uint16).tofile(folder / "train.bin")
    return str(folder / "train.bin")


def plain_wide(folder: Path, documents: Documents) -> str:
    np.array(stream(documents), dtype=np.uint32).tofile(folder / "train.bin")
    return str(folder / "train.bin")


def llm_c(folder: Path, documents: Documents) -> str:
    """Two shards, with the end-of-text token before documents, and one document over both."""
    ids = [id_ for each in documents for id_ in [END, *each]]
    middle = ids.index(END, len(ids) // 2)
    write_llm_c(folder / "train_000.bin", ids[:middle])
    write_llm_c(folder / "train_001.bin", ids[middle:], 20240520)
    return str(folder / "train_*.bin")


def llama(folder: Path, documents: Documents) -> str:
    write_llm_c(folder / "llama.bin", stream(documents), 20240801, 7)
    return str(folder / "llama.bin")


def megatron(folder: Path, documents: Documents) -> str:
    write_megatron(folder / "text_document", documents, "int32")
    return str(folder / "text_document.bin")


def megatron_with_ends(folder: Path, documents: Documents) -> str:
    write_megatron(folder / "eod", [[*ids, END] for ids in documents], "uint16", per_document=2)
    return str(folder / "eod.idx")


def numpy_shards(folder: Path, documents: Documents) -> str:
    np.save(folder / "a.npy", np.array(stream(documents[:100]), dtype=np.int64))
    np.save(folder / "b.npy", np.array(stream(documents[100:]), dtype=np.int64))
    return str(folder / "*.npy")


def parquet(folder: Path, documents: Documents) -> str:
    pd.DataFrame({"input_ids": documents}).to_parquet(folder / "rows.parquet")
    return str(folder / "rows.parquet")


def saved_dataset(folder: Path, documents: Documents) -> str:
    """A directory as ``datasets.Dataset.save_to_disk`` writes it: Arrow streams and a list of them."""
    for number, some in enumerate((documents[:300], documents[300:])):
        table = pa.table({"input_ids": pa.array(some, pa.list_(pa.int32()))})
        with pa.ipc.new_stream(folder / f"data-{number}.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=64)
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    return str(folder)


def json_lines(folder: Path, documents: Documents) -> str:
    """Records with text beside the ids, and without either."""
    records: list[dict[str, Any]] = [{"text": "", "input_ids": None}, {"text": "no", "input_ids": []}]
    records += [{"text": "as read by people", "input_ids": ids} for ids in documents]
    (folder / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return str(folder / "rows.jsonl")


def packed_rows(folder: Path, documents: Documents) -> str:
    """Blocks of one length, cut from the stream wherever they end."""
    ids = stream(documents)
    rows = [ids[start : start + 50] for start in range(0, len(ids) // 50 * 50, 50)]
    table = pa.table({"input_ids": pa.array(rows, pa.list_(pa.uint16(), 50))})
    with pa.ipc.new_file(folder / "packed.arrow", table.schema) as writer:
        writer.write_table(table)
    return str(folder / "packed.arrow")


LAYOUTS = [
    plain,
    plain_wide,
    llm_c,
    llama,
    megatron,
    megatron_with_ends,
    numpy_shards,
    parquet,
    saved_dataset,
    json_lines,
]


def corpus_of(source: str, tokenizer: Path, **more: Any) -> Corpus:
    given = {"text_field": "input_ids"} if "bin" not in source and "npy" not in source else {}
    return resolve_corpus(
        Corpus(source=source, tokenizer=str(tokenizer), context=8, heldout=0.1, **given, **more)
    )


def split_at_ends(ids: np.ndarray) -> set[tuple[int, ...]]:
    assert ids[-1] == END
    return {tuple(part[:-1].tolist()) for part in np.split(ids, np.flatnonzero(ids == END) + 1)[:-1]}


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_gives_the_same_stream(
    write: Callable[[Path, Documents], str],
    documents: Documents,
    tokenizer: Path,
    tmp_path: Path,
    own_cache: Path,
) -> None:
    """Whole documents, one end-of-text token behind each, a tenth held out: the same whatever the layout."""
    (tmp_path / "data").mkdir()
    source = write(tmp_path / "data", documents)
    more = {"token_dtype": "uint32"} if write is plain_wide else {}
    found = tokens_of(corpus_of(source, tokenizer, **more))
    assert found.vocab == 300
    train, held = split_at_ends(found.train), split_at_ends(found.heldout)
    assert not train & held
    assert train | held == set(map(tuple, documents))
    assert 0.09 * len(stream(documents)) < found.heldout_tokens <= 0.1 * len(stream(documents))
    assert found.train_tokens == len(found.train)
    assert found.parts[0].documents == len(documents)
    assert found.train[:40].tolist() == REFERENCE.setdefault("ids", found.train[:40].tolist())
    model = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    texts = [model.decode(list(ids)) for ids in held]
    assert found.parts[0].heldout_bytes == sum(len(text.encode()) for text in texts)


REFERENCE: dict[str, list[int]] = {}


def test_blocks_cut_from_a_stream_are_joined_again(
    documents: Documents, tokenizer: Path, tmp_path: Path, own_cache: Path
) -> None:
    found = tokens_of(corpus_of(packed_rows(tmp_path, documents), tokenizer))
    both = split_at_ends(found.train) | split_at_ends(found.heldout)
    assert len(both & set(map(tuple, documents))) >= len(documents) - 1  # the last block was cut off


def test_a_stream_without_ends_is_held_out_by_position(
    tokenizer: Path, tmp_path: Path, own_cache: Path
) -> None:
    ids = np.random.default_rng(0).integers(1, 300, size=20_000).astype(np.uint16)
    ids.tofile(tmp_path / "train.bin")
    found = tokens_of(corpus_of(str(tmp_path / "train.bin"), tokenizer))
    assert len(found.train) + len(found.heldout) == len(ids)
    pieces = {ids[start : start + 1024].tobytes() for start in range(0, len(ids), 1024)}
    assert {
        found.heldout[start : start + 1024].tobytes() for start in range(0, len(found.heldout), 1024)
    } <= pieces
    assert END not in found.train
    assert found.boundaries == "position"


def test_ids_are_named_by_content_and_tokenizer(
    documents: Documents, tokenizer: Path, tmp_path: Path
) -> None:
    corpus = corpus_of(plain(tmp_path, documents), tokenizer)
    first = fingerprint_of(corpus)
    assert fingerprint_of(corpus.model_copy(update={"seed": 1})) != first
    (tmp_path / "copy.bin").write_bytes((tmp_path / "train.bin").read_bytes())
    assert fingerprint_of(corpus_of(str(tmp_path / "copy.bin"), tokenizer)) == first
    np.array(stream(documents[1:]), dtype=np.uint16).tofile(tmp_path / "copy.bin")
    assert fingerprint_of(corpus_of(str(tmp_path / "copy.bin"), tokenizer)) != first
    with pytest.raises(
        InputError, match=r"holds token ids; name the tokenizer that wrote them in corpus.tokenizer"
    ):
        fingerprint_of(Corpus(source=str(tmp_path / "copy.bin")))


def bad_odd(folder: Path, documents: Documents) -> None:
    (folder / "a.bin").write_bytes(np.array(stream(documents), dtype=np.uint16).tobytes() + b"\0")


def bad_wide(folder: Path, documents: Documents) -> None:
    np.array(stream(documents), dtype=np.uint32).tofile(folder / "a.bin")


def bad_int64(folder: Path, documents: Documents) -> None:
    np.array(stream(documents), dtype=np.int64).tofile(folder / "a.bin")


def bad_endian(folder: Path, documents: Documents) -> None:
    np.array(stream(documents), dtype=">u2").tofile(folder / "a.bin")


def bad_text(folder: Path, documents: Documents) -> None:
    (folder / "a.bin").write_bytes(b"In the beginning was the word; and so on, without end.\n" * 20)


def bad_zeros(folder: Path, documents: Documents) -> None:
    (folder / "a.bin").write_bytes(bytes(4000))


def bad_range(folder: Path, documents: Documents) -> None:
    ids = stream(documents)
    ids[-1] = 300
    np.array(ids, dtype=np.uint16).tofile(folder / "a.bin")


def bad_header(folder: Path, documents: Documents) -> None:
    write_llm_c(folder / "a.bin", stream(documents))
    (folder / "a.bin").write_bytes((folder / "a.bin").read_bytes()[:-2])


def bad_version(folder: Path, documents: Documents) -> None:
    write_llm_c(folder / "a.bin", stream(documents), version=2)


def torn_index(folder: Path, documents: Documents) -> None:
    write_megatron(folder / "a", documents)
    (folder / "a.idx").write_bytes((folder / "a.idx").read_bytes()[:-12])


def torn_megatron(folder: Path, documents: Documents) -> None:
    write_megatron(folder / "a", documents)
    (folder / "a.bin").write_bytes((folder / "a.bin").read_bytes()[:-100])


def other_index(folder: Path, documents: Documents) -> None:
    write_megatron(folder / "a", documents)
    (folder / "a.idx").write_bytes(b"something else, of another program altogether")


def float_index(folder: Path, documents: Documents) -> None:
    write_megatron(folder / "a", documents, "float32")


def gaps(folder: Path, documents: Documents) -> None:
    """Lengths of two sequences exchanged: the offsets no longer fit."""
    write_megatron(folder / "a", documents)
    raw = bytearray((folder / "a.idx").read_bytes())
    first = struct.calcsize("<9sQBQQ")
    raw[first : first + 8] = struct.pack("<ii", len(documents[0]) + 1, len(documents[1]) - 1)
    (folder / "a.idx").write_bytes(raw)


def mixed_types(folder: Path, documents: Documents) -> None:
    write_megatron(folder / "a", documents[:10], "uint16")
    write_megatron(folder / "b", documents[10:], "int32")


def mixed_headers(folder: Path, documents: Documents) -> None:
    write_llm_c(folder / "a.bin", stream(documents))
    plain(folder, documents)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bad_odd, r"a.bin has [\d,]+ bytes, no whole number of ids of 2 bytes: it is torn, or .*token_dtype"),
        (bad_wide, r"a.bin looks like ids of 32 bits, .* set corpus.token_dtype: uint32"),
        (bad_int64, r"a.bin looks like ids of 64 bits, .* write them as .npy"),
        (bad_endian, r"a.bin: id [\d,]+ at position \d+, .* big-endian"),
        (bad_text, r"a.bin holds text, not token ids; name it .txt"),
        (bad_zeros, r"a.bin holds the id 0 only"),
        (bad_range, r"a.bin: id 300 at position [\d,]+, but .*tokenizer.json has 300 entries"),
        (bad_header, r"its header states [\d,]+ tokens, so [\d,]+ bytes, but it has [\d,]+: it is torn"),
        (bad_version, r"header 20240520 of version 2; version 1 is read"),
        (torn_index, r"a.idx states 400 sequences and 401 entries of documents, .*: it is torn"),
        (
            torn_megatron,
            r"a.bin has [\d,]+ bytes, but by .*a.idx its last sequence ends at [\d,]+: it is torn",
        ),
        (other_index, r"a.idx is no index of Megatron"),
        (float_index, r"a.idx states type 7, which is no integer"),
        (gaps, r"a.idx: lengths and offsets of sequences do not fit together"),
        (mixed_types, r"a.bin holds Megatron's ids of type uint16, but .*b.bin Megatron's ids of type int32"),
        (mixed_headers, r"a.bin holds ids after a header of type uint16, but .*train.bin plain ids"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_wrong_ids_are_refused(
    write: Callable[[Path, Documents], None],
    message: str,
    documents: Documents,
    tokenizer: Path,
    tmp_path: Path,
    own_cache: Path,
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", documents)
    with pytest.raises(InputError, match=message):
        tokens_of(corpus_of(str(tmp_path / "data" / "*.bin"), tokenizer))
    assert not list((own_cache / "corpora").glob("*"))


@pytest.mark.parametrize("more", range(4))
@pytest.mark.parametrize(
    ("written", "read", "bits"), [("uint32", "uint16", 32), ("int64", "uint16", 64), ("int64", "uint32", 64)]
)
def test_wider_ids_are_known_wherever_samples_begin(
    written: str,
    read: str,
    bits: int,
    more: int,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sweeps.data.tokenized.token_source.SAMPLED_IDS", 16)
    ids = np.random.default_rng(0).integers(0, 300, size=20_000 + more)
    ids.astype(written).tofile(tmp_path / "a.bin")
    with pytest.raises(InputError, match=rf"a.bin looks like ids of {bits} bits, .* not of {read[4:]}; "):
        fingerprint_of(corpus_of(str(tmp_path / "a.bin"), tokenizer, token_dtype=read))


def test_an_id_that_samples_miss_is_found_when_it_is_read(
    tokenizer: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.data.tokenized.token_source.SAMPLED_IDS", 16)
    ids = np.random.default_rng(0).integers(0, 300, size=200_000).astype(np.uint16)
    ids[77_777] = 4000
    ids.tofile(tmp_path / "a.bin")
    corpus = corpus_of(str(tmp_path / "a.bin"), tokenizer)
    fingerprint_of(corpus)
    with pytest.raises(InputError, match=r"a.bin: id 4,000 at position 77,777, but"):
        tokens_of(corpus)


def test_columns_that_are_no_ids(
    documents: Documents, tokenizer: Path, tmp_path: Path, own_cache: Path
) -> None:
    frame = pd.DataFrame({"input_ids": [[1, 2], [3, -1]]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: id -1 at position 3 of column 'input_ids'"):
        tokens_of(corpus_of(str(tmp_path / "a.parquet"), tokenizer))
    pa.parquet.write_table(pa.table({"input_ids": [[1, None], [3]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"column 'input_ids' has empty values among its ids"):
        tokens_of(corpus_of(str(tmp_path / "a.parquet"), tokenizer))
    np.save(tmp_path / "a.npy", np.ones(10))
    with pytest.raises(InputError, match=r"a.npy holds float64 of shape \(10,\); token ids are integers"):
        tokens_of(corpus_of(str(tmp_path / "a.npy"), tokenizer))
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a.npy holds object"):
        tokens_of(corpus_of(str(tmp_path / "a.npy"), tokenizer))
    lines = tmp_path / "a.jsonl"
    for wrong, message in (
        (
            "[3, 2.5]",
            "line 2: 'input_ids' is no list of token ids, which are whole numbers, found 2.5 at position 1",
        ),
        ("[true]", "line 2: 'input_ids' is no list"),
        ('"text"', "line 2: 'input_ids' is no list"),
        ("[1, 99999999999999999999]", "line 2: 99999999999999999999 of field 'input_ids' is no token id"),
        ("[1, 300]", "a.jsonl, line 2: id 300 at position 1 of field 'input_ids', but .* has 300 entries"),
    ):
        lines.write_text(f'{{"input_ids": [1, 2]}}\n{{"input_ids": {wrong}}}\n')
        with pytest.raises(InputError, match=message):
            tokens_of(corpus_of(str(lines), tokenizer))
    with pytest.raises(InputError, match=r"a.jsonl holds token ids; name the tokenizer that wrote them"):
        tokens_of(Corpus(source=str(lines), text_field="input_ids", context=8))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"holds the splits train, test; name one, as .*/train"):
        tokens_of(corpus_of(str(tmp_path), tokenizer))


def test_ids_of_a_hub(
    documents: Documents, tokenizer: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from the files in which the package keeps a whole split; a part of one is refused."""
    folder = Path(saved_dataset(tmp_path, documents))
    files = [{"filename": str(path)} for path in sorted(folder.glob("*.arrow"))]
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "text": pa.string(), "score": pa.float64()})

    class Downloaded(list[None]):
        features = SimpleNamespace(arrow_schema=schema)
        cache_files, _fingerprint = files, "revision 1"

    rows = [None] * len(documents)
    package = SimpleNamespace(
        load_dataset=lambda name, split, **_: Downloaded(rows[: 5 if "[" in split else None])
    )
    monkeypatch.setitem(sys.modules, "datasets", package)
    found = tokens_of(corpus_of("hf:some/ids", tokenizer))
    assert (found.train == tokens_of(corpus_of(str(folder), tokenizer)).train).all()
    monkeypatch.setattr(Downloaded, "_fingerprint", "revision 2")
    assert fingerprint_of(corpus_of("hf:some/ids", tokenizer)) != found.fingerprint
    with pytest.raises(InputError, match=r"hf:some/ids@train\[:5\] is a part of a split"):
        tokens_of(corpus_of("hf:some/ids@train[:5]", tokenizer))
    with pytest.raises(InputError, match=r"name the tokenizer that wrote them in corpus.tokenizer"):
        tokens_of(Corpus(source="hf:some/ids", text_field="input_ids", context=8))
    with pytest.raises(InputError, match=r"column 'score' holds double, neither text nor lists"):
        tokens_of(Corpus(source="hf:some/ids", text_field="score", context=8))
    with pytest.raises(InputError, match=r"has no column 'body', only input_ids, text, score; set"):
        tokens_of(Corpus(source="hf:some/ids", text_field="body", context=8))


def test_ids_of_16_bits_cannot_be_of_a_large_vocabulary(
    documents: Documents, tokenizer: Path, tmp_path: Path, own_cache: Path
) -> None:
    """Llama's vocabulary has 128,256 entries; its ids are stored in 32 bits."""
    words = {END_OF_TEXT: END, "last": 128_255} | {f"w{number}": number for number in range(1, 300)}
    save_tokenizer(Tokenizer(models.WordLevel(words, unk_token="last")), tmp_path / "large")
    write_megatron(tmp_path / "a", documents)
    with pytest.raises(InputError, match=r"a.bin holds ids of 16 bits, too few for the 128,256 entries of"):
        tokens_of(corpus_of(str(tmp_path / "a.bin"), tmp_path / "large"))
    found = tokens_of(corpus_of(llama(tmp_path, documents), tmp_path / "large"))
    assert found.train.dtype == np.uint32
    assert split_at_ends(found.train) | split_at_ends(found.heldout) == set(map(tuple, documents))
    np.array([*stream(documents), *stream(documents)], dtype=np.uint16).tofile(tmp_path / "b.bin")
    with pytest.raises(InputError, match=r"b.bin: id [\d,]+ at position 0, but .* has 128,256 entries"):
        tokens_of(corpus_of(str(tmp_path / "b.bin"), tmp_path / "large"))


def test_sizes_of_files_that_are_not_read(documents: Documents, tokenizer: Path, tmp_path: Path) -> None:
    """Tokens of a .bin follow from its bytes and the vocabulary, or the type that the spec states."""
    source = plain(tmp_path, documents)
    for more, width in (({}, 2), ({"token_dtype": "uint32"}, 4), ({"vocab": 70_000}, 4)):
        corpus = Corpus(**{"source": source, "tokenizer": str(tokenizer), "heldout": 0.1} | more)
        assert estimated_size(corpus).train_tokens == pytest.approx(0.9 * len(stream(documents)) * 2 / width)


def test_a_split_by_position_is_told(tokenizer: Path, tmp_path: Path, own_cache: Path) -> None:
    np.random.default_rng(0).integers(1, 300, size=5000).astype(np.uint16).tofile(tmp_path / "a.bin")
    (warning, *_) = text_warnings(tokens_of(corpus_of(str(tmp_path / "a.bin"), tokenizer)))
    assert "a.bin has no end-of-text tokens, so pieces of it are held out by position" in warning


def test_jobs_take_an_index_along(documents: Documents, tmp_path: Path) -> None:
    write_megatron(tmp_path / "a", documents)
    for number, name in enumerate(("a.bin", "a.idx")):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert _copy_texts(str(tmp_path / name), folder) == f"texts/*{Path(name).suffix}"
        assert sorted(path.name for path in (folder / "texts").iterdir()) == ["00000-a.bin", "00000-a.idx"]


LIMITED = """
import resource, sys, threading
import numpy as np
from pathlib import Path
threading.stack_size(2**18)
from sweeps.data.corpus import resolve_corpus, tokens_of
from sweeps.spec.corpus import Corpus
lines = Path("/proc/self/status").read_text().splitlines()
used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
bound = used + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
try:
    np.fromfile(sys.argv[1], dtype=np.uint16)
except MemoryError:
    found = tokens_of(resolve_corpus(Corpus(source=sys.argv[1], tokenizer=sys.argv[2], context=8)))
    print(found.train_tokens + found.heldout_tokens)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_ids_twice_as_large_as_memory_are_read(tokenizer: Path, tmp_path: Path, own_cache: Path) -> None:
    """Private memory beyond that of the imports is limited to half of the file, which cannot be read whole."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1, 300, size=2**26, dtype=np.uint16)
    ids[999::1000] = ids[-1] = END
    ids.tofile(tmp_path / "a.bin")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.bin"), str(tokenizer), str(ids.nbytes // 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(len(ids)), done.stderr
