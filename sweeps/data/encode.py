"""Encoding of documents to token ids in parallel processes; run as a program, this module is one of them.

A plain child process, not :mod:`multiprocessing`, starts in 50 ms from a notebook, a script without a guard
or a Ray worker. Threads gain nothing, as those of the tokenizer share one locked cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

BYTES_PER_PROCESS = 2**21
"""Least text for one more process, about a second of work."""
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}


def append_tokens(
    out: Path, tokenizer: Path, end_of_text: int, documents: list[str], *, processes: int | None = None
) -> int:
    """Append the ids of ``documents``, each followed by ``end_of_text``, to ``out``; return their number.

    Ids have 16 bits if the vocabulary allows, else 32. The result does not depend on ``processes``, by
    default the number of usable cores, or less for little text.
    """
    from scaling.cpu import usable_cores  # not at the top: the children need none of it, and start sooner

    sizes = np.cumsum([len(text) for text in documents])
    wanted = processes or min(usable_cores(), 1 + int(sizes[-1]) // BYTES_PER_PROCESS)
    ends = np.searchsorted(sizes, np.linspace(0, sizes[-1], wanted + 1)[1:]) + 1
    shares = [documents[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    before = out.stat().st_size if out.exists() else 0
    if wanted == 1:
        with out.open("ab") as file:
            file.write(encode(tokenizer, end_of_text, documents))
    else:
        _encode_in_processes(out, tokenizer, end_of_text, shares)
    return (out.stat().st_size - before) // _bytes_per_id(Tokenizer.from_file(str(tokenizer)))


def encode(tokenizer: Path, end_of_text: int, documents: list[str]) -> bytes:
    """Encode ``documents`` to bytes one at a time; batches are no faster on one thread."""
    model = Tokenizer.from_file(str(tokenizer))
    dtype = f"u{_bytes_per_id(model)}"
    pieces = []
    for text in documents:
        ids = model.encode(text, add_special_tokens=False).ids
        pieces.append(np.array([*ids, end_of_text], dtype=dtype).tobytes())
    return b"".join(pieces)


def _bytes_per_id(tokenizer: Tokenizer) -> int:
    """Return the bytes of an id."""
    return 2 if max(tokenizer.get_vocab(with_added_tokens=True).values()) < 2**16 else 4


def _encode_in_processes(out: Path, tokenizer: Path, end_of_text: int, shares: list[list[str]]) -> None:
    """Encode each share in a process; threads would each keep what they freed, tens of megabytes together."""
    running: list[tuple[subprocess.Popen[str], Path, Path]] = []
    try:
        for number, share in enumerate(shares):
            texts, ids = (out.with_suffix(f".{number}.{kind}") for kind in ("json", "ids"))
            texts.write_text(json.dumps(share))
            command = [sys.executable, "-P", __file__, str(tokenizer), str(end_of_text), str(texts), str(ids)]
            child = subprocess.Popen(  # noqa: S603
                command, env=os.environ | ONE_THREAD, stderr=subprocess.PIPE, text=True
            )
            running.append((child, texts, ids))
        with out.open("ab") as file:
            for child, texts, ids in running:
                said = child.communicate()[1].strip()
                texts.unlink()
                if child.returncode:
                    raise RuntimeError(f"tokenization failed: {(said.splitlines() or ['killed'])[-1]}")
                file.write(ids.read_bytes())
                ids.unlink()
    finally:
        for child, _, _ in running:
            if child.returncode is None:
                child.kill()
                child.communicate()


if __name__ == "__main__":
    tokenizer_file, end, texts_file, ids_file = sys.argv[1:]
    texts = json.loads(Path(texts_file).read_text())
    Path(ids_file).write_bytes(encode(Path(tokenizer_file), int(end), texts))
