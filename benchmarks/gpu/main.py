"""First contact with a GPU: tests, agreement with the CPU, speed, memory, checkpoints, and a small ladder.

    python benchmarks/gpu/main.py [--out DIR] [--rehearse] [--seconds 460]

``make gpu`` runs it. Without a GPU it says so and ends, unless it rehearses with tiny sizes on the CPU. Each
part is a process of its own with a time limit; one that fails or is stopped leaves its error and what it had
measured until then, and the others go on. Results: ``gpu.json`` and ``gpu.md`` in the output folder. Nothing
is installed or downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]
SECONDS, REHEARSAL_SECONDS = 460.0, 1800.0
"""Seconds for all parts together: on a GPU, and at most in a rehearsal on a busy machine."""
LEAST_SECONDS = 20.0
"""Seconds without which a part does not begin."""
NEEDED = ("torch", "numpy", "scipy", "pandas", "pydantic", "yaml", "safetensors", "tokenizers", "fsspec")
"""Packages without which no part runs."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its title and the most seconds it may take; None for all that is left."""

    title: str
    limit: float | None


PARTS = {
    "tests": Part("Tests marked gpu", 110),
    "agreement": Part("Losses of one recipe on CPU and GPU", 40),
    "loops": Part("Tokens per second of three loops", 180),
    "distillation": Part("A teacher online, and cached", 80),
    "memory": Part("Memory model and allocator", 50),
    "checkpoints": Part("Checkpoints", 50),
    "ladder": Part("A small ladder on this repository's text", None),
}
Results = Iterator[dict[str, Any]]
"""Results of a part, again and again as they grow."""


def main() -> int:
    """Run all parts, or one in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on whatever device there is")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if missing := [name for name in NEEDED if not find_spec(name)]:
        print(f"make gpu: {sys.executable} lacks {', '.join(missing)}; nothing is installed here")
        return 1
    import torch

    if not (torch.cuda.is_available() or given.rehearse):
        print(
            "make gpu: no CUDA GPU here, nothing to do; --rehearse runs all parts with tiny sizes on the CPU"
        )
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part:
        for result in part_results(given.part, given.out, rehearse=given.rehearse):
            _write(given.out / f"{given.part}.json", json.dumps(result))
        return 0
    seconds = REHEARSAL_SECONDS if given.rehearse else given.seconds
    return run_all(given.out, seconds, rehearse=given.rehearse)


def run_all(out: Path, seconds: float, *, rehearse: bool) -> int:
    """Run every part in a process of its own; write JSON and page after each, so that none is lost."""
    import torch
    from page import page

    until = time.monotonic() + seconds
    gpu = torch.cuda.is_available()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if gpu else "CPU (a rehearsal with tiny sizes)",
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parts": {},
    }
    for name, part in PARTS.items():
        left = until - time.monotonic()
        limit = left if rehearse else min(left, part.limit or left)
        found["parts"][name] = _in_child(name, part, out, limit, rehearse=rehearse)
        (out / "gpu.json").write_text(json.dumps(found, indent=2))
        (out / "gpu.md").write_text(page(found))
        ended = found["parts"][name]
        print(f"{part.title}: {ended['error'] or 'done'} ({ended['seconds']:.0f} s)", flush=True)
    failed = sum(bool(part["error"]) for part in found["parts"].values())
    print(f"{out / 'gpu.md'}: {len(PARTS) - failed} of {len(PARTS)} parts")
    return 1 if failed else 0


def _in_child(name: str, part: Part, out: Path, limit: float, *, rehearse: bool) -> dict[str, Any]:
    """Run one part; return its result, as far as it came, its error, and the seconds that it took."""
    file, began = out / f"{name}.json", time.monotonic()
    file.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "main.py"), "--out", str(out), "--part", name]
    log = out / f"{name}.log"
    if limit < LEAST_SECONDS:
        error: str | None = "no time was left"
    else:
        error = _stopped_or_failed(command + ["--rehearse"] * rehearse, log, limit)
    result = None
    with suppress(OSError, ValueError):
        result = json.loads(file.read_text())
    taken = time.monotonic() - began
    return {"title": part.title, "limit": limit, "seconds": taken, "error": error, "result": result}


def _stopped_or_failed(command: list[str], log: Path, limit: float) -> str | None:
    """Run a command with all that it starts for so many seconds; return its error, if it has one."""
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        code = child.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s; see {log.name}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    last = log.read_text(errors="replace").strip().splitlines()
    return (last[-1][:300] if last else f"it ended with {code}") if code else None


def part_results(name: str, out: Path, *, rehearse: bool) -> Results:
    """Run one part in this process and yield its results as they grow."""
    import torch
    from agreement import compare_with_cpu
    from allocator import compare_memory
    from checkpoint_cost import checkpoint_cost
    from distillation import compare_targets
    from loops import compare_loops
    from sizes import sizes
    from small_ladder import small_ladder

    torch.manual_seed(0)
    chosen = sizes(rehearse=rehearse)
    parts: dict[str, Callable[[], Results]] = {
        "tests": marked_tests,
        "agreement": lambda: compare_with_cpu(chosen),
        "loops": lambda: compare_loops(chosen),
        "distillation": lambda: compare_targets(chosen),
        "memory": lambda: compare_memory(chosen),
        "checkpoints": lambda: checkpoint_cost(chosen),
        "ladder": lambda: small_ladder(chosen, _new(out / "ladder")),
    }
    return parts[name]()


def marked_tests() -> Results:
    """Run the tests that are marked ``gpu``; yield pytest's summary.

    Raises:
        RuntimeError: If a test failed, or pytest is not installed.
    """
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
    yield {"summary": " ".join(last)}
    if done.returncode:
        raise RuntimeError(" ".join(last) or f"pytest ended with {done.returncode}")


def _write(file: Path, text: str) -> None:
    """Write a file at once, as its writer may be killed."""
    scratch = file.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(file)


def _new(folder: Path) -> Path:
    """Return an empty folder."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
