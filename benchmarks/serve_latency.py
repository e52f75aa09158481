"""Latency of the API under concurrent requests: ``python benchmarks/serve_latency.py``.

A server of its own and 50 clients that arrive within 200 ms, each on one connection kept alive. No two
questions are the same, but in the rows *again*: there all clients ask one, whose answer is remembered.
*Paced* clients ask one question each 200 ms, as somebody does who drags a slider; *eager* ones ask again as
soon as they are answered, so that their latency is 50 times the server's time for one question, divided by
the cores that its processes have. The clients share one process on the same machine, and its cores. Times are
in milliseconds, from the first byte sent to the last one received, connecting left out; ``CPU`` is what the
server computed a question, all of its processes together, in the same run, ``x`` the ratio of p99 to what
eager clients cannot undercut, their number times that, divided by two processes. ``turns`` is the p99 of the
questions that the server answered while one waited, 50 at best, which depends less on other load.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLIENTS = 50
SERVERS = 2
"""Processes that answer, as :mod:`distlaw.serve.servers` starts them."""
SECONDS = float(os.environ.get("SECONDS", "10"))
PAUSE = 0.2
"""Seconds between the questions of a paced client."""
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\n\r\n"
)
Body = dict[str, object]
Question = Callable[[random.Random], tuple[str, Body]]


def predicted(rng: random.Random) -> tuple[str, Body]:
    """The losses of one student, with intervals."""
    return "/predict", {
        "student_params": 10 ** rng.uniform(7, 10),
        "student_tokens": 10 ** rng.uniform(9, 12),
        "teacher_loss": rng.uniform(2.0, 2.6),
    }


def planned(rng: random.Random) -> tuple[str, Body]:
    """One student on one budget, all four scenarios, points alone."""
    return "/plan", {
        "student_params": 10 ** rng.uniform(8, 10),
        "budget": 10 ** rng.uniform(20, 23),
        "uncertainty": False,
    }


def asked_again(_: random.Random) -> tuple[str, Body]:
    """One plan for all requests."""
    return planned(random.Random(0))


class Answers:
    """Number of answers given to all clients."""

    given = 0

    def next(self) -> int:
        """Count one more."""
        self.given += 1
        return self.given


async def client(
    port: int, ask: Question, seed: str, pause: float, waited: list[int], answered: Answers
) -> list[float]:
    """Latencies of one client, seconds; a paced one that falls behind does not catch up.

    ``answered`` numbers the answers to all clients; to ``waited`` goes how many each question waited for.
    """
    rng, latencies = random.Random(seed), []
    await asyncio.sleep(rng.uniform(0, PAUSE))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    end = time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        path, body = ask(rng)
        content = json.dumps(body).encode()
        head = HEAD.format(path=path, length=len(content))
        asked = answered.given
        writer.write(head.encode() + content)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not answer.startswith(b"http/1.1 200"):
            raise SystemExit(f"{path}: {answer.decode()}")
        await reader.readexactly(int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        latencies.append(time.perf_counter() - start)
        waited.append(answered.next() - asked)
        await asyncio.sleep(max(0.0, pause - latencies[-1]))
    writer.close()
    return latencies


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its children, from Linux's accounting."""
    counts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(counts[11]) + int(counts[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


async def measured(port: int, pid: int, ask: Question, pause: float) -> str:
    """Quantiles over all clients, the load of the machine, and the server's own time a question."""
    used = cpu_seconds(pid)
    names = (f"{used} {k}" for k in range(CLIENTS))  # what was asked before is remembered
    waited: list[int] = []
    answers = Answers()
    each = await asyncio.gather(*(client(port, ask, name, pause, waited, answers) for name in names))
    times = 1e3 * np.concatenate(each)
    cost = 1e3 * (cpu_seconds(pid) - used) / len(times)
    p50, p90, p99 = np.quantile(times, [0.5, 0.9, 0.99])
    least = CLIENTS * cost / min(os.cpu_count() or 1, SERVERS)
    return (
        f"{p50:7.1f} {p90:7.1f} {p99:7.1f} {times.max():7.1f} {len(times) / SECONDS:7.0f} "
        f"{os.getloadavg()[0]:6.1f} {cost:6.2f} {p99 / least:5.2f} {np.quantile(waited, 0.99):6.0f}"
    )


def main() -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "distlaw", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[1].rstrip("/").rpartition(":")[2])
        asyncio.run(measured(port, server.pid, predicted, 0.0))  # everything loaded
        print(f"{CLIENTS} clients on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
        print("question  clients     p50     p90     p99     max     1/s   load    CPU     x  turns")
        for ask, name in ((predicted, "predict"), (planned, "plan"), (asked_again, "again")):
            for pause, kind in ((PAUSE, "paced"), (0.0, "eager")):
                print(f"{name:9} {kind:7}", asyncio.run(measured(port, server.pid, ask, pause)))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
