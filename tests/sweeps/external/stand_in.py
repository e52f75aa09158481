"""Command of the tests in the place of a trainer: does in milliseconds what its arguments say."""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

job = json.loads(Path(os.environ["DISTLAW_JOB"]).read_text())
out, checkpoints = Path(os.environ["DISTLAW_OUT"]), Path(os.environ["DISTLAW_CHECKPOINTS"])
options = dict(word.split("=", 1) for word in sys.argv[1:])


def loss_of(params: float, tokens: float, teacher: float | None) -> float:
    """A law without noise, which a fit can find."""
    own = 1.5 + 30.0 / params**0.35 + 50.0 / tokens**0.4
    return own if teacher is None else own * 0.9 + 0.1 * teacher


def report() -> dict:
    teacher = job["teacher"] and job["teacher"]["loss"]
    return {"params": job["params"], "loss": loss_of(job["params"], job["tokens"], teacher)}


if place := options.get("once"):  # fail if another process of this step is at work
    handle = (Path(place) / job["id"]).open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (Path(place) / f"{job['id']}.twice").touch()
        sys.exit("run twice at once")
    if os.fork() == 0:  # a child that holds the lock, in a session of its own, as long as it lives
        os.setsid()
        time.sleep(600)
        os._exit(0)
for moment in range(int(options.get("moments", 0))):
    with (out / "progress.jsonl").open("a") as file:
        file.write(
            json.dumps({"tokens": job["tokens"] * moment / int(options["moments"]), "loss": 3.0}) + "\n"
        )
    print("moment", moment, flush=True)  # noqa: T201
    time.sleep(0.1)
if options.get("ignore") == "SIGTERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if options.get("stop") == "politely":
    signal.signal(signal.SIGTERM, lambda *_: ((checkpoints / "saved").touch(), sys.exit(75)))
if options.get("sleep"):
    (checkpoints / f"started-{os.environ['DISTLAW_ATTEMPT']}").touch()
    time.sleep(float(options["sleep"]))
if options.get("again") and not (checkpoints / "again").exists():
    (checkpoints / "again").touch()
    sys.exit(75)
exec(options.get("do", ""))
if "exit" in options:
    sys.exit(int(options["exit"]))
if "silent" not in options:
    (out / "result.json").write_text(options.get("result") or json.dumps(report()))
