"""Sources larger than memory: the same tokens whatever happens on the way, and files that are not reread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from sweeps.data.corpus import tokens_of
from sweeps.data.files import source_files
from sweeps.data.files.text_files import documents_of
from sweeps.data.streaming import spill, tokenization
from sweeps.data.streaming.claim import Claim
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
