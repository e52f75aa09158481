"""Runs that commands train: identity, what a command is told, what becomes of what it leaves, and its faults."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands_in_tests import run, trainer

import sweeps
from scaling.errors import InputError
from sweeps.execute.state import State
from sweeps.external.collect import collect_result
from sweeps.external.process import MARK
from sweeps.external.result import read_result
from sweeps.spec.trainer import Trainer
from sweeps.store.leases import attempts
from sweeps.store.store import Store


def only(spec: dict[str, Any]) -> str:
    (step,) = sweeps.load(spec).dag.steps
    return step.id


def test_a_command_trains_all_roles(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["32k"]}]
    spec["teachers"] = [{"params": ["7k"], "tokens": ["32k"]}]
    spec["students"] = [{"params": ["3k"], "tokens": ["40k"]}]
    state = run(spec, tmp_path / "store")
    assert state.complete, state
    table = sweeps.results(tmp_path / "store")
    student = table[table["kind"] == "distillation"].iloc[0]
    teacher = table[table["run"] == student["teacher"]].iloc[0]
    assert student["teacher_loss"] == teacher["loss"]
    assert set(table["loss_on"]) == {"as reported by its command"}
    assert table["bits_per_byte"].isna().all()
    own = 1.5 + 30.0 / student["params"] ** 0.35 + 50.0 / student["tokens"] ** 0.4
    assert student["loss"] == pytest.approx(own * 0.9 + 0.1 * teacher["loss"])
    assert not run(spec, tmp_path / "store").found ^ state.done  # nothing runs again


def test_the_command_and_its_version_are_part_of_the_identity(spec: dict[str, Any]) -> None:
    ours = only({**spec, "trainer": None})
    first = only(spec)
    assert first != ours
    assert only({**spec, "trainer": trainer(version="2")}) != first
    assert only({**spec, "trainer": trainer("moments=1")}) != first
    assert only({**spec, "trainer": trainer(env={"HF_HOME": "/cache"}, grace_seconds=3)}) == first
    assert only({**spec, "trainer": {"supervised": trainer()}}) == first
    assert only({**spec, "trainer": {"students": trainer()}}) == ours
    with_grid = {**spec, "supervised": [{**spec["supervised"][0], "trainer": "distlaw"}]}
    assert only(with_grid) == ours


def test_a_command_is_told_its_run(spec: dict[str, Any], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    spec["trainer"] = {
        "command": [
            *("sh", "-c", 'cp "$DISTLAW_JOB" "$1"; shift; echo "$@" $OMP_NUM_THREADS $PLACE > "$0"'),
            *(
                str(seen),
                str(tmp_path / "job.json"),
                "{params}",
                "{tokens}",
                "{batch_size}",
                "{seed}",
                "{{}}",
            ),
        ],
        "version": "1",
        "env": {"PLACE": "{vocab}:{gpus}"},
    }
    assert "no result" in next(iter(run(spec, tmp_path / "store").failed.values()))
    job = json.loads((tmp_path / "job.json").read_text())
    assert seen.read_text().split() == [str(job["params"]), "32000", "2", "0", "{}", "1", "300:0"]
    assert job["role"] == "supervised"
    assert job["rules"]["warmup_steps"] == 25
    assert job["flops"] == job["training_flops"] > 0
    assert Path(job["corpus"]["train_file"]).stat().st_size == 2 * job["corpus"]["train_tokens"]
    assert (Path(job["corpus"]["tokenizer"]) / "tokenizer.json").is_file()


FAULTS = {
    "nan": (['result={"params": 4184, "loss": NaN}'], "loss: must be.*|.*finite.*"),
    "no loss": (['result={"params": 4184}'], "loss is missing; without a model"),
    "perplexity": (
        ['result={"params": 4184, "loss": 33.1}'],
        "loss: 33.1 nats/token is far above the .* guessing",
    ),
    "another size": (
        ['result={"params": 41840, "loss": 3}'],
        "41.8K non-embedding parameters, and 4.18K were asked",
    ),
    "another length": (
        ['result={"params": 4184, "loss": 3, "tokens": 64000}'],
        "64K training tokens, and 32K",
    ),
    "unknown field": (['result={"params": 4184, "lost": 3}'], "lost: no such field; did you mean 'loss'"),
    "no json": (["result=loss 3"], "not a JSON object"),
    "a list": (["result=[3]"], "not a JSON object of fields"),
    "twice": (['result={"params": 4184, "loss": 3, "loss": 2}'], "result.json has the key 'loss' twice"),
    "a column": (
        ['result={"params": 4184, "loss": 3, "metrics": {"teacher_loss": 2}}'],
        "metrics: teacher_loss is a column of every runs table; choose another name",
    ),
    "no result": (["silent="], "exited with 0 and left no result there"),
    "exit 3": (
        ["do=print('\x1b[31mout of luck\x1b[0m\x07')", "exit=3"],
        "its command exited with 3: out of luck$",
    ),
    "no model": (['result={"model": "final"}'], "final has no config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_a_sentence(fault: str, spec: dict[str, Any], tmp_path: Path) -> None:
    options, message = FAULTS[fault]
    spec["trainer"] = trainer(*[option.replace("{", "{{").replace("}", "}}") for option in options])
    state = run(spec, tmp_path / "store")
    (reason,) = state.failed.values()
    assert re.search(message, reason), reason
    assert "\n" not in reason
    assert len(attempts(Store(tmp_path / "store"), only(spec))) == 1  # as another attempt would end so too


def test_a_program_that_is_not_there(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["trainer"] = {"command": ["no-such-trainer", "{job}"], "version": "1"}
    (reason,) = run(spec, tmp_path / "store").failed.values()
    assert (
        "no-such-trainer cannot be started (No such file or directory); give a program on the PATH" in reason
    )


def test_size_and_tokens_within_a_tenth_are_used_as_they_are(spec: dict[str, Any], tmp_path: Path) -> None:
    ours = sweeps.load(spec).dag.steps[0]
    params, tokens = round(1.08 * ours.shape.params), round(0.95 * ours.tokens)
    result = {
        "params": params,
        "loss": 3.25,
        "tokens": tokens,
        "loss_on": "validation split",
        "metrics": {"ppl": 25},
    }
    spec["trainer"] = trainer(f"result={json.dumps(result)}".replace("{", "{{").replace("}", "}}"))
    assert run(spec, tmp_path / "store").complete
    row = sweeps.results(tmp_path / "store", metrics=True).iloc[0]
    assert (row["params"], row["tokens"], row["loss"]) == (params, tokens, 3.25)
    assert row["loss_on"] == "validation split"
    assert row["ppl"] == 25
    assert row["flops"] == pytest.approx(ours.flops * 1.0 * params / ours.shape.params * tokens / ours.tokens)


def test_exit_code_75_is_tried_again(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.store.outcomes.BACKOFF_SECONDS", 0.01)
    spec["trainer"] = trainer("again=yes")
    state = run(spec, tmp_path / "store")
    assert state.complete
    first, second = attempts(Store(tmp_path / "store"), only(spec))
    assert (first.ending, second.ending) == ("lost", "done")
    assert "asks to be started again (exit code 75)" in first.told["reason"]


BAD_TRAINERS = {
    "no placeholder": (
        {"command": ["a", "{param}"]},
        r"{param} in '{param}' is no placeholder; did you mean {params}\?",
    ),
    "no such placeholder": (
        {"command": ["a", "{zzz}"]},
        r"{zzz} in '{zzz}' is no placeholder; known: job, out",
    ),
    "single brace": ({"command": ["a", "{"]}, "has a single brace; write {{ and }}"),
    "one text": ({"command": "python train.py"}, "expected a list of words, such as"),
    "no version": ({"command": ["a"], "version": None}, "trainer.version"),
    "a secret": ({"command": ["a"], "env": {"WANDB_API_KEY": "s3cr3t"}}, "WANDB_API_KEY looks like a secret"),
    "a secret option": ({"command": ["a", "--hf-token", "s3cr3tvalue"]}, "command: --hf-token looks like a"),
    "a secret value": ({"command": ["sh", "-c", "WANDB_API_KEY=s3cr3t0 a"]}, "command: WANDB_API_KEY looks"),
    "a key": ({"command": ["a", "hf_s3cr3ts3cr3ts3cr3ts3cr3t"]}, r"command: hf_s\.\.\. looks like a secret"),
    "ours": ({"command": ["a"], "env": {"DISTLAW_OUT": "x"}}, "DISTLAW_OUT is not for you to set"),
    "no name": ({"command": ["a"], "env": {"A=B": "x"}}, "'A=B' is no name of a variable"),
    "teacher": ({"command": ["a", "{teacher}"]}, r"supervised\[0\]: its command names {teacher}"),
    "two logs": ({"command": ["a"], "collect": {"csv": "a", "hf": "b"}}, "found hf and csv"),
    "no group": ({"command": ["a"], "collect": {"regex": "loss (.*)"}}, "it needs a group named loss"),
    "column": ({"command": ["a"], "collect": {"csv": "a", "map": {"size": "b"}}}, "no column 'size'"),
    "bytes": ({"command": ["a"], "collect": {"csv": "a", "loss_unit": "bits/byte"}}, "go together"),
    "field": ({"cmd": ["a"]}, "trainer.cmd: no such field; did you mean 'command'"),
    "grace": ({"command": ["a"], "grace_seconds": -1}, "trainer.grace_seconds"),
}


@pytest.mark.parametrize("fault", BAD_TRAINERS)
def test_bad_trainers_are_refused(fault: str, spec: dict[str, Any]) -> None:
    fields, message = BAD_TRAINERS[fault]
    with pytest.raises(InputError) as error:
        sweeps.load(spec | {"trainer": {"version": "1"} | fields})
    assert re.search(message, str(error.value)), error.value
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--max-tokens", "100000000"],
        ["--tokens", "{tokens}", "--token-budget=1000000"],
        ["sh", "-c", 'train --hf-token "$HF_TOKEN" --api_key=$KEY'],
        ["--credentials", "/etc/gcloud/key.json", "--private-key=~/.ssh/id_rsa"],
        ["--eos-token", "<|endoftext|>", "--pad_token=<pad>"],
        ["--secrets-file={job}"],
    ],
)
def test_what_only_looks_like_a_secret_is_a_command(words: list[str]) -> None:
    assert Trainer.model_validate({"command": words, "version": "1"}).command == words


@pytest.mark.parametrize("given", ["distlaw", {"students": "distlaw"}])
def test_our_own_trainer_by_its_name_for_all_is_left_out(given: Any, spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="our own trainer is the default: leave this out") as error:
        sweeps.load(spec | {"trainer": given})
    assert "dictionary" not in str(error.value)


def processes_of(step: str) -> list[int]:
    """Living processes of a step, by the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = (
                f"{MARK}=".encode() in (data := (folder / "environ").read_bytes()) and step.encode() in data
            )
            if marked and (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_children_left_behind_are_ended(spec: dict[str, Any], tmp_path: Path) -> None:
    leave = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    spec["trainer"] = trainer(f"do={leave}")
    assert run(spec, tmp_path / "store").complete
    assert not processes_of(only(spec))


def test_progress_logs_and_cancellation_in_processes(spec: dict[str, Any], tmp_path: Path) -> None:
    """One that reports progress, and two that are cancelled: one stops when asked, one ignores SIGTERM."""
    commands = trainer("moments=30"), trainer("stop=politely", "sleep=600", grace_seconds=1)
    grid, deaf = spec["supervised"][0], trainer("ignore=SIGTERM", "sleep=601", grace_seconds=1)
    spec["supervised"] = [{**grid, "trainer": each} for each in (*commands, deaf)]
    reporting, polite, stubborn = (step.id for step in sweeps.load(spec).dag.steps)
    place, asked = tmp_path / "store", dict[str, float]()
    store, seen = Store(place), set[int]()

    def watch(state: State) -> None:
        seen.update(each.done for each in attempts(store, reporting))
        for step in (polite, stubborn):
            if step not in asked and (place / step / "checkpoints" / "started-1").exists():
                asked[step] = time.monotonic()
                store.write({}, step, "attempts", "cancel.json")

    state = run(spec, place, executor="process", cores=3, watch=watch)
    assert time.monotonic() - min(asked.values()) < 60
    assert state.done == {reporting}
    assert all("cancelled" in state.failed[step] for step in (polite, stubborn))
    assert (place / polite / "checkpoints" / "saved").exists()
    assert not (processes_of(polite) or processes_of(stubborn))
    (attempt,) = attempts(store, reporting)
    assert attempt.done == attempt.told["steps"] == 500
    assert len(seen) > 2
    assert b"moment 29" in (store.read_bytes(*attempt.told["log"].split("/")) or b"")


@pytest.mark.alone
def test_ctrl_c_ends_a_command_that_ignores_it(spec: dict[str, Any], tmp_path: Path) -> None:
    """Not before its grace period, and then with all that it started; the next start begins it anew."""
    spec["trainer"] = trainer("ignore=SIGTERM", "sleep=602", grace_seconds=1)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    place, step = tmp_path / "store", only(spec)
    words = [
        "-m",
        "distlaw",
        "sweep",
        "run",
        str(tmp_path / "spec.yaml"),
        "--store",
        str(place),
        "--cores",
        "1",
    ]
    driver = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it
    )
    try:
        started, deadline = place / step / "checkpoints" / "started-1", time.monotonic() + 120
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of(step)
        driver.send_signal(signal.SIGINT)
        printed = driver.communicate(timeout=60)[0].decode()
    finally:
        driver.kill()
    assert driver.returncode not in (0, -signal.SIGKILL), printed
    assert "Traceback" not in printed
    assert not processes_of(step)
    store = Store(place)
    assert store.result(step) is None
    assert store.read(step, "failure.json") is None  # a stop is no failure: the same command goes on


LOGS = {
    "jsonl": (
        "import json; print(*[json.dumps({'step': i, 'eval': {'loss': 4 - i / 10}, 'params': 4300}) for i in "
        "range(5)], sep='\\n', file=open(out / 'log.jsonl', 'w'))",
        {"jsonl": "{out}/log.jsonl", "map": {"params": "params"}},
        3.6,
    ),
    "csv": (
        "open(out / 'log.csv', 'w').write('step,params,val_loss\\n1,4300,3.5\\n2,4300,3.7\\n')",
        {"csv": "{out}/log.csv", "take": "best", "map": {"params": "params"}},
        3.5,
    ),
    "regex": (
        "print('N = 4300 val 5.0 bits'); print('N = 4300 val 4.5 bits'); print('x' * 200000)",
        {"regex": "N = (?P<params>[0-9]+) val (?P<loss>[0-9.]+)", "loss_unit": "bits/token"},
        4.5 * math.log(2),
    ),
    "mapped": (
        'open(out / "log.jsonl", "w").write(\'{"step": 1, "a": {"b": 3.25}, "size": 4300, "val_loss": 9}\')',
        {"jsonl": "{out}/log.jsonl", "map": {"loss": "a.b", "params": "size"}},
        3.25,
    ),
}


SAMPLES = Path(__file__).parents[2] / "fits/logs/samples"
LOGS |= {
    "hf": (
        "(out / 'trainer_state.json').write_text(json.dumps({'log_history': [{'step': 10, 'loss': 4.0}, "
        "{'step': 10, 'eval_loss': 3.25, 'params': 4300}], 'global_step': 10, 'max_steps': 10}))",
        {"hf": "{out}", "map": {"params": "params"}},
        3.25,
    ),
    "tensorboard": (
        f"import shutil; shutil.copytree({str(SAMPLES / 'tensorboard/megatron')!r}, out / 'events')",
        {"tensorboard": "{out}/events", "map": {"params": "step*53.75"}},
        3.341641,
    ),
}


@pytest.mark.parametrize("form", LOGS)
def test_results_from_logs(form: str, spec: dict[str, Any], tmp_path: Path) -> None:
    do, collect, loss = LOGS[form]
    do = do.replace("{", "{{").replace("}", "}}")
    spec["trainer"] = trainer(f"do={do}", "silent=", collect=collect)
    state = run(spec, tmp_path / "store")
    assert state.complete, state
    row = sweeps.results(tmp_path / "store").iloc[0]
    assert (row["params"], row["loss"]) == (4300, pytest.approx(loss))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"map": {"params": "size", "tokens": "nosuch"}}, "map: tokens: .*nosuch"),
        ({"map": {"params": "size", "loss_se": "nosuch"}}, "map: loss_se: no 'nosuch' in the log"),
        ({"map": {"params": "size", "flops": "nosuch"}}, "map: flops: no 'nosuch' in the log"),
        ({"tokens_per_step": "lots of it"}, "tokens_per_step: no tokens follow from 'lots of it'"),
    ],
)
def test_what_a_log_should_tell_and_does_not_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Else the tokens that were asked for would stand for those that were trained."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "size": 4300, "val_loss": 3.5}\n')
    collect = {"jsonl": str(log), "map": {"params": "size"}} | changed
    trainer = Trainer.model_validate({"command": ["a"], "version": "1", "collect": collect})
    with pytest.raises(InputError, match=message):
        collect_result(trainer, {}, log)


SAYING = {"step": 1, "params": 4300, "val_loss": 3.5}


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        (
            "jsonl", json.dumps(SAYING) + '\n{"step": 2, "params": 4300, "val_l',
            r"its last line is cut off \(line 2 is not JSON .*\), although the command ended with 0",
        ),
        ("jsonl", '{"step": 1, "val_loss": 3.5}\n', r"params: no model files .*; name it: map: \{params: NAME\}$"),
        ("jsonl", '{"step": 1, "params": 4300, "a": 3.5}\n', r"name it: map: \{loss: NAME\}"),
        ("csv", "", "log: empty: not even a header was written"),
        ("csv", " \n", "log: empty: not even a header was written"),
    ],
)  # fmt: skip
def test_faults_of_logs_are_told_in_the_fields_of_the_spec(
    form: str, content: str, message: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text(content)
    told = {"command": ["a"], "version": "1", "collect": {form: str(log), "map": {"params": "params"}}}
    if "map: \\{params" in message:
        del told["collect"]["map"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=message) as error:
        collect_result(Trainer.model_validate(told), {}, log)
    assert "--" not in str(error.value)


def test_numbers_as_text_and_sizes_of_the_model_are_read_from_json_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"model": {"n_params_non_embedding": "4300"}, "run": "7"}]
    lines += [{"step": str(i), "val_loss": f"{4 - i / 10}", "tokens": f"{i}e3", "note": "12"} for i in (1, 2)]
    log.write_text("\n".join(map(json.dumps, lines)) + "\n")
    told = {"command": ["a"], "version": "1", "collect": {"jsonl": str(log)}}
    found, _ = collect_result(Trainer.model_validate(told), {}, log)
    assert (found.params, found.loss, found.tokens) == (4300, 3.8, 2000)


def test_a_result_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"params": 4300, "loss": 3.5}), encoding="utf-8-sig")
    assert read_result(tmp_path / "result.json").loss == 3.5


def test_an_output_of_many_lines_is_cut_in_the_middle(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["trainer"] = trainer("do=[print('line', i, 'x' * 1000) for i in range(22_000)]")
    assert run(spec, tmp_path / "store").complete
    output = tmp_path / "store" / only(spec) / "command-0001" / "output.log"
    text = output.read_text()
    assert len(text) < 21_000_000
    assert text.startswith("line 0 ")
    assert "bytes left out" in text
    assert f"line {21_999} " in text


def test_a_result_is_of_this_attempt(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The out directory of an attempt is new; checkpoints are shared."""
    monkeypatch.setattr("sweeps.store.outcomes.BACKOFF_SECONDS", 0.01)
    spec["trainer"] = trainer(
        "do=first = not (checkpoints / 'x').exists(); (checkpoints / 'x').touch(); "
        "(out / 'result.json').write_text('{{}}') if first else None; assert first or not list(out.iterdir()); "
        "os.kill(os.getpid(), 9) if first else None",
    )
    assert run(spec, tmp_path / "store").complete
    assert len(attempts(Store(tmp_path / "store"), only(spec))) == 2


def test_a_trainer_without_a_command_waits_for_record(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["trainer"] = {"version": "1"}
    (reason,) = run(spec, tmp_path / "store").failed.values()
    assert "distlaw sweep record" in reason


def test_unwritable_out(spec: dict[str, Any], tmp_path: Path) -> None:
    step = only(spec)
    (tmp_path / "store" / step).mkdir(parents=True)
    (tmp_path / "store" / step / "command-0001").write_text("a file")
    state = run(spec, tmp_path / "store")
    assert not state.complete
    assert state.failed[step].startswith("Not a directory: ")
    assert f"{step}/command-0001" in state.failed[step]
