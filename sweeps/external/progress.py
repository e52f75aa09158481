"""Progress that a command reports: lines of ``progress.jsonl``, for status, time left and caps."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from sweeps.external.job import ExternalJob

MAX_BYTES = 1_000_000
"""Bytes that are read at once; of more, the end."""


class ProgressFile:
    """Reader of a file that a command may append to, each line ``{"tokens" or "step", "loss"}``."""

    def __init__(self, path: Path, job: ExternalJob, *, attempt: int, grace: float) -> None:
        self.path, self.job, self.grace = path, job, grace
        self.place, self.rest = 0, b""
        self.started = time.monotonic()
        self.began = 0 if attempt == 1 else None
        """Steps that earlier attempts had done, which are not counted again."""
        self.last: dict[str, float] = {}

    def read(self) -> dict[str, Any]:
        """Return the fields of a heartbeat: optimizer steps done and asked, loss, and seconds so far."""
        for line in self._new_lines():
            self._take(line)
        rules = self.job.rules
        tokens = self.last.get("tokens", self.last.get("step", 0.0) * rules.batch_tokens)
        done = min(rules.steps, max(0, round(tokens / rules.batch_tokens)))
        if self.last and self.began is None:
            self.began = done
        return {
            "began": min(self.began or 0, done),
            "steps_done": done,
            "steps": rules.steps,
            "loss": self.last.get("loss"),
            "seconds": time.monotonic() - self.started,
            "pieces": 1,
            "grace": self.grace,
        }

    def done(self) -> dict[str, Any]:
        """Return the fields of the last heartbeat of a run that is done."""
        return self.read() | {"steps_done": self.job.rules.steps}

    def _new_lines(self) -> list[bytes]:
        try:
            size = self.path.stat().st_size
            if size < self.place:  # written anew
                self.place, self.rest = 0, b""
            if size == self.place:
                return []
            with self.path.open("rb") as file:
                file.seek(max(self.place, size - MAX_BYTES))
                data = file.read(MAX_BYTES)
                self.place = file.tell()
        except OSError:
            return []
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines

    def _take(self, line: bytes) -> None:
        """Take the numbers of a line; what is no record of progress is passed over."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        for name in ("tokens", "step", "loss"):
            value = record.get(name) if isinstance(record, dict) else None
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
                and value >= 0
            ):
                self.last[name] = float(value)
