"""Sources larger than memory: the same tokens whatever happens on the way, and files that are not reread."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from scaling.errors import InputError
from sweeps.data.batches import Batches
from sweeps.data.corpus import fingerprint_of, resolve_corpus, tokens_of
from sweeps.data.files import fingerprints, source_files
from sweeps.data.files.text_files import documents_of
from sweeps.data.prefetch import loader
from sweeps.data.sources import source_of
from sweeps.data.streaming import claim, spill, tokenization
from sweeps.data.streaming.claim import Claim, TakenOver, claimed
from sweeps.data.streaming.spill import Spill, bucket_file, sorted_documents
from sweeps.data.tokenizer import END_OF_TEXT_ID
from sweeps.spec.corpus import Corpus


def streamed(source: Path | str, **more: Any) -> Corpus:
    return Corpus(
        **{"source": str(source), "vocab": 300, "context": 8, "heldout": 0.1, "streaming": True} | more
    )


def texts(corpus: Any, ids: np.ndarray) -> list[str]:
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_files / "tokenizer.json"))
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False).split("<|endoftext|>")[:-1]


def test_documents_are_the_same_as_in_memory(text_file: Path, own_cache: Path) -> None:
    """All documents once, a tenth of the bytes held out, shuffled by the seed and not by their order."""
    paragraphs = text_file.read_text().split("\n\n")
    text_file.write_text(
        text_file.read_text() + "\n\n \n\n" + paragraphs[0] + "\n\n"
    )  # a duplicate, an empty one
    found = tokens_of(streamed(text_file))
    train, held = texts(found, found.train), texts(found, found.heldout)
    assert sorted([*train, *held]) == sorted(set(paragraphs))
    whole = sum(map(len, paragraphs))
    assert 0.09 * whole < sum(map(len, held)) == found.parts[0].heldout_bytes <= 0.105 * whole
    assert found.parts[0].heldout_documents == len(held)
    assert found.train[-1] == END_OF_TEXT_ID
    other = tokens_of(streamed(text_file, seed=1))
    assert texts(other, other.heldout) != held
    text_file.write_text("\n\n".join(reversed(paragraphs)))
    again = tokens_of(streamed(text_file))
    assert again.fingerprint != found.fingerprint
    assert texts(again, again.train) == train
    assert not list((own_cache / "tokenizing").glob("*/spill"))


def test_paragraphs_read_by_lines_are_those_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(
        "\ufeff\r\n\r\none\r\n two\n \t\n\n\nthree \n \r\nfour\x0b\n\x0b\nfive".encode()
    )
    file = source_files.file_at(str(tmp_path / "a.txt"))
    at_once = [text.strip() for text in documents_of(file, "text")]
    by_lines = [text.strip() for text in documents_of(file, "text", streaming=True)]
    assert (
        [text for text in at_once if text]
        == [text for text in by_lines if text]
        == ["one\n two", "three", "four\x0b\n\x0b\nfive"]
    )
    monkeypatch.setattr("sweeps.data.files.text_files.MAX_DOCUMENT_BYTES", 10)
    (tmp_path / "a.txt").write_text("a line\nof a text\n" * 20)
    pieces = list(documents_of(file, "text", streaming=True))
    assert "".join(pieces) == "a line\nof a text\n" * 20
    assert max(map(len, pieces)) < 20


def test_a_spill_keeps_each_document_once_in_the_order_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BUFFERED_BYTES", 1000)
    documents = [f"document {number % 700}".encode() * (1 + number % 3) for number in range(2100)]
    orders = []
    for name, some in (("a", documents), ("b", documents[::-1])):
        writer = Spill(tmp_path / name, seed=3)
        for document in some:
            writer.add(document)
        writer.flush()
        orders.append([d for n in range(256) for d in sorted_documents(bucket_file(tmp_path / name, n))])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(set(documents))
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("stop", ["after a file", "after a shard", "while joining"])
def test_work_goes_on_where_it_was_stopped(
    stop: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted and continued, it gives the bytes of an uninterrupted run, and repeats nothing."""
    paragraphs = text_file.read_text().split("\n\n")
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("\n\n".join(paragraphs[number::4]))
    corpus = streamed(tmp_path / "[0-9].txt")
    monkeypatch.setattr(tokenization, "SHARD_BYTES", 2**14)
    stops: dict[str, int] = {"after a file": 2, "after a shard": 7}
    saves: list[int] = []
    save, join = tokenization.TokenizationProgress.save, tokenization.StreamedTokenization._join

    def saved(progress: Any, work: Path, claim: Claim) -> None:
        save(progress, work, claim)
        saves.append(progress.files)
        if len(saves) == stops.get(armed):
            with bucket_file(work / "spill", 255).open("ab") as file:
                file.write(b"torn" if progress.files < 4 else b"")
            raise KeyboardInterrupt

    def joined(self: Any, folder: Path) -> Any:
        found = join(self, folder)
        if armed == "while joining":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(tokenization.TokenizationProgress, "save", saved)
    monkeypatch.setattr(tokenization.StreamedTokenization, "_join", joined)
    armed = ""
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "whole"))
    whole = tokens_of(corpus)
    total = len(saves)
    assert total > 10
    saves.clear()
    armed = stop
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        tokens_of(corpus)
    armed = ""
    found = tokens_of(corpus)
    assert len(saves) == total
    for name in ("train.bin", "heldout.bin", "manifest.json"):
        assert (found.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_full_disk_is_explained_and_work_goes_on_when_there_is_room(
    text_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = tokenization.append_tokens

    def full(*given: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def of_a_process(*given: Any) -> int:
        raise RuntimeError("tokenization failed: OSError: [Errno 28] No space left on device")

    for failing in (full, of_a_process):
        monkeypatch.setattr(tokenization, "append_tokens", failing)
        with pytest.raises(
            InputError, match=r"no space is left while tokenizing .*text.txt; free some and run again"
        ):
            tokens_of(streamed(text_file))
    monkeypatch.setattr(tokenization, "append_tokens", append)
    monkeypatch.setattr(Spill, "add", lambda *given: pytest.fail("the text is read again"))
    assert tokens_of(streamed(text_file)).train_tokens > 1000
    monkeypatch.setattr(tokenization.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"0.0 GB are free, but streaming needs a copy of the source"):
        tokens_of(streamed(text_file, seed=1))


@pytest.mark.parametrize("content", ["", "  \n\n \t\n\n", "one document alone\n"])
def test_texts_that_cannot_be_split(content: str, tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match=r"a.txt (holds no text|is a single document)"):
        tokens_of(streamed(tmp_path / "a.txt"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_source_that_changes_while_it_is_read_is_refused(
    streaming: bool, text_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paragraphs = text_file.read_text()

    def growing(file: source_files.SourceFile, field: str, **how: Any) -> Iterator[str]:
        yield from documents_of(file, field, **how)
        text_file.write_text(paragraphs + "\n\nanother")

    monkeypatch.setattr("sweeps.data.sources.documents_of", growing)
    with pytest.raises(
        InputError, match=r"text.txt changed while it was read \([\d,]+ bytes before, [\d,]+ now\)"
    ):
        tokens_of(streamed(text_file, streaming=streaming))
    assert not list((own_cache / "corpora").glob("[!.]*"))


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """A text that is large by a lower threshold, identified by 16 samples of 8 bytes."""
    monkeypatch.setattr(fingerprints, "LARGE_BYTES", 2**14)
    monkeypatch.setattr(fingerprints, "SAMPLE_BYTES", 8)
    monkeypatch.setattr(fingerprints, "REMEMBERED_BYTES", 2**10)
    path = tmp_path / "large.txt"
    path.write_text("\n\n".join(f"document {number} of a large text" for number in range(1000)))
    return path


def test_a_large_file_is_read_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identified by samples, and again by its time alone; all bytes are hashed where that is asked for."""
    corpus = Corpus(source=str(large), vocab=300, context=8)
    first = fingerprint_of(corpus)
    whole = fingerprint_of(corpus.model_copy(update={"verify": "full"}))
    assert whole != first
    monkeypatch.setattr(source_files.SourceFile, "open", lambda self: pytest.fail("read again"))
    assert fingerprint_of(corpus) == first
    assert fingerprint_of(corpus.model_copy(update={"verify": "full"})) == whole
    copy = large.with_name("copy.txt")
    copy.write_bytes(large.read_bytes())
    monkeypatch.undo()
    monkeypatch.setattr(fingerprints, "LARGE_BYTES", 2**14)
    monkeypatch.setattr(fingerprints, "SAMPLE_BYTES", 8)
    monkeypatch.setenv("DISTLAW_CACHE", str(large.parent / "cache"))
    assert fingerprint_of(Corpus(source=str(copy), vocab=300, context=8)) == first


def test_a_change_that_samples_miss_is_found_by_the_time(large: Path) -> None:
    corpus = Corpus(source=str(large), vocab=300, context=8)
    found = tokens_of(corpus)
    before = large.read_bytes()
    os.utime(large, ns=(1, 1))
    assert tokens_of(corpus).path == found.path  # the same bytes at another time
    at = before.index(b"document 500")
    large.write_bytes(before[:at] + b"DOCUMENT" + before[at + 8 :])
    assert fingerprint_of(corpus) == found.fingerprint
    with pytest.raises(
        InputError, match=r"large.txt has changed since its text was tokenized, .* set corpus.verify: full"
    ):
        tokens_of(corpus)
    again = tokens_of(corpus.model_copy(update={"verify": "full"}))
    assert "DOCUMENT 500 of a large text" in [*texts(again, again.train), *texts(again, again.heldout)]


def test_a_bucket_holds_the_same_text_as_a_disk(text_file: Path, own_cache: Path) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe_file("/texts/a.txt", text_file.read_bytes())
    try:
        url = "memory://texts/*.txt"
        assert [file.name for file in source_files.find_files(url, (".txt",))] == ["memory://texts/a.txt"]
        assert source_of(url).fingerprint == source_of(str(text_file)).fingerprint
        assert list(source_of(url).documents()) == list(source_of(str(text_file)).documents())
        assert resolve_corpus(streamed(url)).source == url
        found = tokens_of(streamed("memory://texts/a.txt"))
        assert found.fingerprint == tokens_of(streamed(text_file)).fingerprint
        with pytest.raises(InputError, match=r"no file matches 'memory://texts/b\*'"):
            source_of("memory://texts/b*")
        with pytest.raises(
            InputError, match=r"nosuch://a/b.txt cannot be opened \(Protocol not known: nosuch\)"
        ):
            source_of("nosuch://a/b.txt")
    finally:
        files.rm("/texts", recursive=True)


def test_a_claim_of_another_machine_is_taken_over_when_it_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "patience", lambda: 0.4)
    monkeypatch.setattr(claim, "POLL_SECONDS", 0.02)
    with claimed(tmp_path) as first:
        assert first is not None
        monkeypatch.setattr(claim, "_machine", lambda: "another")
        with claimed(tmp_path) as second:  # it is heard of
            assert second is None
        first.fence()
        monkeypatch.setattr(Claim, "beat", lambda self, **how: None)
        time.sleep(0.1)
        with claimed(tmp_path) as second:
            assert second is not None
            assert second.number == first.number + 1
            with pytest.raises(TakenOver):
                first.fence()


def test_a_claim_that_was_given_up_is_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose holder died on this machine, whose lock is held here."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits"))
    assert Claim(tmp_path, 1).create()
    with claimed(tmp_path) as second:
        assert second is not None
    monkeypatch.setattr(claim, "_machine", lambda: "another")
    with claimed(tmp_path) as third:
        assert third is not None
        assert third.number == 3


def test_a_process_that_was_overtaken_finds_the_others_work(
    text_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before it records anything, waits, and goes on with what is there then."""
    save = tokenization.TokenizationProgress.save
    overtaken = []

    def saved(progress: Any, work: Path, held: Claim) -> None:
        if not overtaken:
            overtaken.append(Claim(work, held.number + 1))
            assert overtaken[0].create()
            assert not Claim(work, held.number + 1).create()
        save(progress, work, held)

    monkeypatch.setattr(tokenization.TokenizationProgress, "save", saved)
    assert tokens_of(streamed(text_file)).train_tokens > 1000
    assert len(overtaken) == 1


@pytest.mark.slow
def test_a_killed_process_loses_no_work(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL wherever it was: whoever comes next finishes, with the tokens of an undisturbed run."""
    text_file.write_text(
        "\n\n".join(f"{n} {text}" for n in range(8) for text in text_file.read_text().split("\n\n"))
    )
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "whole"))
    monkeypatch.setattr(tokenization, "SHARD_BYTES", 2**14)
    whole = tokens_of(streamed(text_file))
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "cache"))
    script = (
        "import sys; from sweeps.data.streaming import tokenization; tokenization.SHARD_BYTES = 2**14\n"
        "from sweeps.data.corpus import tokens_of; from sweeps.spec.corpus import Corpus\n"
        f"print('ready', flush=True); tokens_of(Corpus(**{streamed(text_file).model_dump()!r}))"
    )
    draw, killed = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0.05, 1.0))
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed > 2
    found = tokens_of(streamed(text_file))
    assert (found.path / "train.bin").read_bytes() == (whole.path / "train.bin").read_bytes()
    assert (found.path / "heldout.bin").read_bytes() == (whole.path / "heldout.bin").read_bytes()


def test_batches_read_ahead_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an epoch's end, from any step on, and with another reader of the same order beside."""
    data = Batches(np.arange(1000, dtype=np.uint16), context=8, batch=4, seed=0)
    plain = loader(data, data.read, lambda numbers: numbers[:2], torch.device("cpu"), ahead=False)
    read_ahead = loader(data, data.read, lambda numbers: numbers[:2], torch.device("cpu"), ahead=True)
    for step in [5, 6, 7, 30, 31, 32, 60, 61, 2]:
        ahead = read_ahead(step)
        data.numbers(0)
        for one, other in zip(ahead, plain(step), strict=True):
            assert torch.equal(one, other)

    def broken(numbers: torch.Tensor) -> torch.Tensor:
        raise OSError("the disk is gone")

    failing = loader(data, broken, lambda numbers: numbers, torch.device("cpu"), ahead=True)
    with pytest.raises(OSError, match="the disk is gone"):
        failing(0)
