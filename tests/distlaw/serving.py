"""A server of the tests' own, and how to ask it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The address of ``distlaw serve`` on a free port."""
    command = [sys.executable, "-W", "error", "-m", "distlaw", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith(("distlaw: http://127.0.0.1:", "distlaw: http://[::1]:")), (
            line + process.stderr.read()
        )
        yield line.split()[1].rstrip("/")
    finally:
        process.terminate()
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert complaints == "", complaints


def ask(url: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Status and parsed answer; a body is posted, as JSON unless it is bytes."""
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
