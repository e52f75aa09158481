"""Tokenize and train on a text larger than memory, under a limit on memory.

Usage: ``python benchmarks/streamed_text.py [TEXT_MB [LIMIT_MB]]``, by default 800 MB under 400 MB.

Text of random words is written; then a process limits itself and those that it starts to LIMIT_MB of
private memory above what they have after their imports (``RLIMIT_DATA``: heap and anonymous mappings, but not
pages of files, which the kernel can drop), tokenizes the text, and trains a small model on it. The peak of
anonymous memory of all processes together is sampled from ``/proc``, five times a second. Under a cgroup
run it as ``systemd-run --scope -p MemoryMax=... python benchmarks/streamed_text.py``.

Then the rate of the streamed path is compared with that of the path in memory, on the first 16 MB of the
text, in turns in this process; and the time to identify the text, when it is new and again.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

COMPARED_MB = 16


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
    """Return the private memory of a process in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def limited(text: Path, limit_mb: float) -> None:
    """Tokenize and train under the limit; print what was reached as JSON."""
    from sweeps.dag.ladder import shape_for
    from sweeps.data.corpus import tokens_of
    from sweeps.spec.corpus import Corpus
    from sweeps.spec.spec import Training
    from sweeps.train.loop import train
    from sweeps.train.recipe import RunRecipe

    own = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData")
    )
    bound = own + int(limit_mb * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    corpus = Corpus(source=str(text), vocab=2048, context=128, streaming=True, verify="samples")
    peaks, over = [0.0], threading.Event()
    base = anonymous_mb(os.getpid())

    def watch() -> None:
        while not over.wait(0.2):
            try:
                peaks.append(sum(map(anonymous_mb, descendants(os.getpid()))))
            except OSError:
                continue

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    found = tokens_of(corpus)
    tokenized = time.perf_counter() - began
    peak = max(peaks)
    print(f"tokenized in {tokenized:.1f} s, {base:.0f} MB before, at most {peak:.0f} MB", flush=True)
    shape = shape_for(20_000, vocab=2048, context=128, aspect_ratio=16.0)
    training = Training(batch_tokens=1024, warmup_tokens=10_240)
    recipe = RunRecipe(shape=shape, training=training, steps=50, seed=0)
    began = time.perf_counter()
    train(recipe, found.train)
    over.set()
    print(
        json.dumps(
            {
                "train_tokens": found.train_tokens,
                "documents": found.parts[0].documents,
                "tokenize_s": round(tokenized, 1),
                "train_s": round(time.perf_counter() - began, 1),
                "base_mb": round(base),
                "tokenize_peak_mb": round(peak),
                "peak_mb": round(max(peaks)),
            }
        )
    )


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
    """Write the text, run the limited process, and compare."""
    if sys.argv[1:2] == ["limited"]:
        limited(Path(sys.argv[2]), float(sys.argv[3]))
        return
    text_mb = float(sys.argv[1]) if len(sys.argv) > 1 else 800.0
    limit_mb = float(sys.argv[2]) if len(sys.argv) > 2 else 400.0
    with tempfile.TemporaryDirectory(prefix="distlaw-text-") as name:
        folder = Path(name)
        text = folder / "text.txt"
        write_text(text, int(text_mb * 1e6))
        command = [sys.executable, __file__, "limited", str(text), str(limit_mb)]
        subprocess.run(command, env=os.environ | {"DISTLAW_CACHE": str(folder / "cache")}, check=True)
        print(json.dumps(compare(text, folder)))


if __name__ == "__main__":
    main()
