"""Two hosts and the network between them, which is cut: each a network, process and name space of its own.

Needs root, for the name spaces; the store is a bucket on the first host, so that the second loses that too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.store import Store

PATIENCE = 6.0
CUT_SECONDS = 25.0
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def test_a_host_cut_off_for_longer_than_its_lease_harms_nothing(
    small_spec: dict[str, Any], tmp_path: Path, hosts: dict[str, Any]
) -> None:
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{hosts['here'].address}:5000",
        "DISTLAW_CACHE": str(tmp_path / "cache"),
        "DISTLAW_LEASE_SECONDS": str(PATIENCE),
        "DISTLAW_CHECKPOINT_SECONDS": "1",
        "OMP_NUM_THREADS": "1",
    }
    small_spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["256k"], "seeds": [0, 1]}]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["128k"], "seeds": [0, 1]}]
    path, whole = tmp_path / "spec.yaml", tmp_path / "whole"
    path.write_text(yaml.safe_dump(small_spec))
    ids = [step.id for step in dag_of(parse_sweep(small_spec)).steps]
    run = [str(BIN / "python"), "-m", "distlaw", "sweep", "run", str(path), "--executor", "process"]
    subprocess.run([*run, "--store", str(whole), "--cores", "2"], env=environment, check=True)

    parts = []
    with (tmp_path / "log").open("wb") as log:

        def start(host: str, *command: str) -> subprocess.Popen[bytes]:
            parts.append(
                subprocess.Popen([*hosts[host].command, *command], env=environment, stdout=log, stderr=log)
            )
            return parts[-1]

        try:
            start("here", str(BIN / "python"), "-c", SERVE)
            peek = Peek(hosts["here"].command, environment)
            peek.wait_for_server()
            store = ["--store", "s3://bucket/sweep", "--cores", "1"]
            drivers = [start(host, *run, *store) for host in ("there", "here")]
            step = peek.wait_for_step_of("there", drivers)
            hosts["there"].link("down")
            cut = time.monotonic()
            peek.wait_until(lambda: len(peek.attempts(step)) > 1, 500)  # once a core is free there
            time.sleep(max(0.0, CUT_SECONDS - (time.monotonic() - cut)))
            hosts["there"].link("up")
            assert [driver.wait(timeout=300) for driver in drivers] == [0, 0]
            first, second, *_ = peek.attempts(step)
            assert (first["host"], second["host"]) == ("there", "here")
            assert first.get("ending", "held") == "held"
            undisturbed = Store(whole)
            for each in ids:
                ours, theirs = peek.result(each), undisturbed.result(each)
                assert theirs
                assert (ours["loss"], ours["weights_sha256"]) == (theirs["loss"], theirs["weights_sha256"])
                assert sum(attempt.get("ending") == "done" for attempt in peek.attempts(each)) == 1
        finally:
            for part in parts:
                part.kill()
                part.wait()


class Peek:
    """Looks into the bucket, from the host it lies on."""

    def __init__(self, host: list[str], environment: dict[str, str]) -> None:
        self.host, self.environment = host, environment

    def ask(self, what: str) -> Any:
        code = f"import json; from test_partition import peek; print(json.dumps(peek({what!r})))"
        path = {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
        command = [*self.host, sys.executable, "-c", code]
        told = subprocess.run(
            command, env=self.environment | path, capture_output=True, text=True, check=True
        )
        return json.loads(told.stdout)

    def attempts(self, step: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"attempts {step}")
        return found

    def result(self, step: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"result {step}")
        return found

    def wait_until(self, true: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def wait_for_server(self) -> None:
        def up() -> bool:
            with_bucket = subprocess.run(
                [*self.host, sys.executable, "-c", MAKE],
                env=self.environment,
                check=False,
                capture_output=True,
            )
            return with_bucket.returncode == 0

        self.wait_until(up, 60)

    def wait_for_step_of(self, host: str, drivers: list[subprocess.Popen[bytes]]) -> str:
        """A step that ``host`` has come some way with."""
        found: list[str] = []

        def begun() -> bool:
            assert all(driver.poll() is None for driver in drivers)
            found[:] = self.ask(f"begun {host}")
            return bool(found)

        self.wait_until(begun, 120)
        return found[0]


SERVE = """
import socket
socket.setdefaulttimeout(3)  # it holds a lock while it reads a request, half of which may never come
from moto.server import main
main(["-H", "0.0.0.0", "-p", "5000"])
"""
MAKE = "import fsspec; fsspec.filesystem('s3').makedirs('bucket', exist_ok=True)"


def peek(what: str) -> Any:
    """Body of :class:`Peek`, inside the process on the host."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    store = Store("s3://bucket/sweep")
    verb, name = what.split()
    if verb == "attempts":
        claims = [store.read(name, "attempts", f"{each.number:04d}.json") for each in attempts(store, name)]
        return [
            {**(claim or {}), **each.told} for claim, each in zip(claims, attempts(store, name), strict=True)
        ]
    if verb == "result":
        return store.result(name)
    return [
        step
        for step in store.steps()
        for each in attempts(store, step)
        if each.told.get("host") == name and each.done > each.told.get("began", 0) and not each.ending
    ]
