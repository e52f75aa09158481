"""Tokenize and train on a text of twice the memory, under a limit on memory.

Usage: ``python benchmarks/streamed_text.py [TEXT_MB [LIMIT_MB]]``, by default 800 MB under 400 MB.

Text of random words is written. Then a process with a limit of LIMIT_MB tokenizes it and trains a small model
on all of it at random, and another does the same without a limit and with a cache of its own: tokens, losses
and weights must be the same. The limit is a cgroup's where one can be made (as root): on all memory of all
processes, with interpreter, libraries and pages of files, which the kernel drops where others need them. Else
it is ``RLIMIT_DATA``, of private memory of each process above what it has after its imports; the output says
which. The peak of memory that cannot be dropped is sampled five times a second.

Then the rate of the streamed path is compared with that of the path in memory, on the first 16 MB of the
text, in turns in this process; and the time to identify the text, when it is new and again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from memory_limit import Cgroup, limited_cgroup

COMPARED_MB = 16
STEPS = 500
"""Optimizer steps, on 4,000 blocks from all over the text."""


def write_text(path: Path, size: int) -> None:
    """Write about ``size`` bytes of paragraphs of words of a vocabulary like Zipf's."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    with path.open("w") as file:
        while file.tell() < size:
            block = draw.choices(words, weights, k=400_000)
            start = 0
            while start < len(block):
                end = start + draw.randint(30, 400)
                file.write(" ".join(block[start:end]) + "\n\n")
                start = end


def descendants(pid: int) -> list[int]:
    """Return ``pid`` and the processes that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [each for child in task.read_text().split() for each in descendants(int(child))]
    return found if children.exists() else []


def anonymous_mb(pid: int) -> float:
    """Return the private memory of a process in MB; none of one that has ended."""
    try:
        return status_mb("RssAnon", pid)
    except OSError:
        return 0.0


def status_mb(name: str, pid: int | str = "self") -> float:
    """Return a field of a process's status in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


class Peaks:
    """Peak of memory that cannot be dropped, of this process and its children, sampled by a thread."""

    def __init__(self, group: Cgroup | None) -> None:
        self.group, self.highest, self.over = group, 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """Return the memory at this moment, in MB."""
        if self.group:
            return self.group.anonymous_mb()
        return sum(map(anonymous_mb, descendants(os.getpid())))

    def take(self) -> int:
        """Return the peak since it was last taken, in MB."""
        found, self.highest = max(self.highest, self.now()), 0.0
        return round(found)

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            with suppress(OSError):
                self.highest = max(self.highest, self.now())


def work(text: Path, steps: int, group: Cgroup | None, above_mb: float | None) -> dict[str, Any]:
    """Tokenize and train; return what was reached.

    Args:
        text: File.
        steps: Optimizer steps.
        group: Cgroup that this process is in.
        above_mb: Limit on private memory above that of now, where there is no cgroup.
    """
    from sweeps.dag.ladder import shape_for
    from sweeps.data.corpus import tokens_of
    from sweeps.model.heldout import heldout_loss
    from sweeps.spec.corpus import Corpus
    from sweeps.spec.spec import Training
    from sweeps.train.loop import train
    from sweeps.train.recipe import RunRecipe

    if above_mb is not None:
        bound = int(1e6 * (status_mb("VmData") + above_mb))
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    peaks = Peaks(group)
    found: dict[str, Any] = {"imported_mb": peaks.take()}
    began = time.perf_counter()
    tokens = tokens_of(Corpus(source=str(text), vocab=2048, context=128, streaming=True, verify="samples"))
    found |= {"tokenize_s": round(time.perf_counter() - began, 1), "tokenize_peak_mb": peaks.take()}
    shape = shape_for(20_000, vocab=2048, context=128, aspect_ratio=16.0)
    training = Training(batch_tokens=1024, warmup_tokens=10_240)
    began = time.perf_counter()
    model = train(RunRecipe(shape=shape, training=training, steps=steps, seed=0), tokens.train)
    found |= {"train_s": round(time.perf_counter() - began, 1), "train_peak_mb": peaks.take()}
    found["token_file_mb"] = round(tokens.train.nbytes / 1e6)
    weights = hashlib.sha256(b"".join(each.numpy().tobytes() for each in model.state_dict().values()))
    found["same"] = {
        "train_tokens": tokens.train_tokens,
        "documents": tokens.parts[0].documents,
        "heldout_loss": heldout_loss(model, tokens.heldout[: 128 * 1024], context=128).loss,
        "tokens": hash_of_file(tokens.path / "train.bin"),
        "weights": weights.hexdigest()[:16],
    }
    return found


def hash_of_file(path: Path) -> str:
    """Return a short hash of all bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def in_child(text: Path, steps: int, limit_mb: float | None, cache: Path) -> dict[str, Any]:
    """Run :func:`work` in a process, under a limit unless it is None."""
    with limited_cgroup(limit_mb) if limit_mb else nullcontext() as group:
        how = "none" if not limit_mb else "cgroup" if group else "RLIMIT_DATA, above imports"
        given = json.dumps(vars(group), default=str) if group else ""
        above = "" if group or not limit_mb else str(limit_mb)
        done = subprocess.run(
            [sys.executable, __file__, "work", str(text), str(steps), given, above],
            env=os.environ | {"DISTLAW_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return {"limit": how, "limit_mb": limit_mb} | json.loads(done.stdout.splitlines()[-1])


def child(text: str, steps: str, given: str, above: str) -> None:
    """Enter the cgroup before anything large is imported, work, and print what was reached."""
    group = None
    if given:
        about = json.loads(given)
        group = Cgroup(**about | {"folder": Path(about["folder"])})
        group.enter()
    print(json.dumps(work(Path(text), int(steps), group, float(above) if above else None)))


def compare(text: Path, folder: Path) -> dict[str, float]:
    """Return seconds of both paths on the first part of the text, and to identify all of it."""
    from sweeps.data.corpus import fingerprint_of, tokens_of
    from sweeps.spec.corpus import Corpus

    part = folder / "part.txt"
    with text.open("rb") as whole:
        part.write_bytes(whole.read(COMPARED_MB * 10**6).rpartition(b"\n\n")[0])
    found: dict[str, float] = {}
    for streaming in (False, True, False, True):
        os.environ["DISTLAW_CACHE"] = str(folder / f"cache-{len(found)}-{streaming}")
        began = time.perf_counter()
        tokens_of(Corpus(source=str(part), vocab=2048, streaming=streaming))
        name = "streamed_s" if streaming else "in_memory_s"
        found[name] = min(found.get(name, 1e9), time.perf_counter() - began)
    os.environ["DISTLAW_CACHE"] = str(folder / "cache-identify")
    for verify in ("samples", "full"):
        for name in ("new", "again"):
            began = time.perf_counter()
            fingerprint_of(Corpus(source=str(text), streaming=True, verify=verify))
            found[f"{verify}_{name}_s"] = time.perf_counter() - began
    return {name: round(seconds, 4) for name, seconds in found.items()}


def main() -> None:
    """Write the text, work under the limit and without it, and compare."""
    if sys.argv[1:2] == ["work"]:
        child(*sys.argv[2:])
        return
    text_mb = float(sys.argv[1]) if len(sys.argv) > 1 else 800.0
    limit_mb = float(sys.argv[2]) if len(sys.argv) > 2 else 400.0
    with tempfile.TemporaryDirectory(prefix="distlaw-text-") as name:
        folder = Path(name)
        text = folder / "text.txt"
        write_text(text, int(text_mb * 1e6))
        found = []
        for limit in (limit_mb, None):
            found.append(in_child(text, STEPS, limit, folder / f"cache-{limit}"))
            print(json.dumps({"text_mb": text_mb} | found[-1]), flush=True)
        if found[0]["same"] != found[1]["same"]:
            raise SystemExit("tokens, losses or weights differ")
        print(json.dumps(compare(text, folder)))


if __name__ == "__main__":
    main()
