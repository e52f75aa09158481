"""Twenty questions as research engineers ask them, each with what its answer must hold."""

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from distlaw.options import with_options
from scaling import InputError

WAYS = (
    "teacher and logits free",
    "teacher exists, logits paid",
    "teacher trained, logits free",
    "teacher trained, logits paid",
)
QUESTIONS = {
    "a budget in FLOPs": (
        "plan --student 300M --budget 1e21",
        (r"^Distil: teacher and logits free\. Too close", "300M student, 1e21 FLOPs \\(1 ZFLOP\\)", *WAYS),
    ),
    "hours of a device": (
        "plan --student 300M --budget '1000 h100-hours'",
        ("1.42e21 FLOPs \\(1.42 ZFLOP\\) = 1K h100-hours = \\$2.49K", "Distil: teacher and logits free"),
    ),
    "hours of a device named apart": (
        "plan --student 1B --budget '10000 gpu-hours' --gpu h200",
        ("= 10K h200-hours", "1B student"),
    ),
    "devices for a time": (
        "plan --student 1B --budget '64 b200 for 10 days'",
        ("4.98e22 FLOPs \\(49.8 ZFLOP\\) = 15.4K b200-hours = \\$57.6K", "Extrapolated up to"),
    ),
    "dollars": (
        "plan --student 1B --budget '$5000 on h100'",
        ("= 2.01K h100-hours = \\$5K", "Too close|Distil|Train directly"),
    ),
    "dollars at one's own price": (
        "plan --student 1B --budget '$5k' --gpu mi300x --price 2.50",
        ("= 2K mi300x-hours = \\$5K",),
    ),
    "the size is open, and the student will serve": (
        "plan --budget 1e22 --lifetime-tokens 1T --gpu h100",
        ("gain +student +tokens", "serving 1T tokens", "= 7.02K h100-hours = \\$17.5K"),
    ),
    "a target": (
        "plan --student 1B --target-loss 2.2",
        ("Cheapest way to a loss of 2.2: teacher and logits free, 8.36e20 FLOPs", "P +FLOPs +tokens"),
    ),
    "a teacher on the hub": (
        "plan --student 300M --budget 1e21 --teacher Qwen/Qwen3-8B",
        ("^No teacher pays: train directly", "6.95B, 36T", "tokenizer \\(151936 tokens\\)", "tuned after pretraining"),
    ),
    "a teacher of a size and tokens": (
        "plan --student 1B --budget 1e21 --teacher 8B --teacher-tokens 15T",
        ("^8B +(close|direct|distil)", "8B, 15T", "extrapolated beyond the fitted runs: teacher tokens"),
    ),
    "a teacher of a measured loss": (
        "plan --student 1B --budget 1e21 --teacher 8B --teacher-loss 2.1",
        ("^8B +(close|direct|distil)", "direct training"),
    ),
    "several teachers, none of which may pay": (
        "plan --student 300M --budget 1e21 --teacher Qwen3-4B-Base --teacher Qwen3-0.6B-Base",
        ("^No teacher clearly pays; too close to call: Qwen/Qwen3-0.6B-Base", "Qwen3-4B-Base +direct"),
    ),
    "a mixture of experts": (
        "plan --student 1B --budget 1e21 --teacher Qwen/Qwen3-30B-A3B-Base",
        ("29.9B, 36T", "no law here is of mixtures of experts", "logits cost what a token meets"),
    ),
    "a student like an open model": (
        "plan --student Qwen/Qwen3-0.6B --budget 1e21",
        ("440M student, 1e21 FLOPs",),
    ),
    "a family": (
        "plan --family 100M,300M,1B --budget 3e21",
        ("gain \\(P\\) +100M student +300M student +1B student", "^direct training, loss", "Distil: .*\\(300M, 1B\\)"),
    ),
    "few data": (
        "plan --student 300M --budget 1e21 --unique-tokens 20B",
        ("20B distinct tokens", "over 4 epochs of the student's data"),
    ),
    "a range of budgets": (
        "plan --student 1B --budget '100 h100-hours:1000 h100-hours'",
        ("1.42e20 FLOPs \\(0.142 ZFLOP\\) = 100 h100-hours = \\$249, to 1.42e21",),
    ),
    "bounds on the teacher": (
        "plan --student 1B --budget 1e22 --constrain 'teacher_params<=3B' --scenario teacher_pretraining",
        ("teacher trained, logits free", "teacher params at most 3B|teacher params.*3B"),
    ),
    "far beyond the runs": (
        "plan --student 300M --budget 1e24",
        ("^No answer, too far outside the fitted runs", "beyond the fitted runs: student tokens 130x to 780x"),
    ),
    "one model": (
        "predict --student 1B --tokens 20:1 --teacher-loss 2.3",
        ("1B student, 20B tokens", "supervised +2\\.", "effective-tokens-sharp"),
    ),
}  # fmt: skip


def run(question: str) -> str:
    result = CliRunner().invoke(app, shlex.split(question))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("question", "held"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_realistic_question_is_answered_in_80_columns(question, held, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run(question)
    told = re.sub(r"\n\s*", " ", text)
    for pattern in held:
        assert re.search(pattern, text, re.M) or re.search(pattern, told), f"{pattern}\n{text}"
    assert max(map(len, text.splitlines())) <= 80
    assert len(re.findall("extrapolated beyond", text)) <= 1
    assert "\x1b" not in text


def test_the_list_has_twenty_questions():
    assert len(QUESTIONS) == 20


def test_a_narrow_terminal_keeps_what_decides(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = run("plan --student 300M --budget '1000 h100-hours'")
    assert max(map(len, text.splitlines())) <= 60
    assert re.search(r"^way +P +loss +gain +tokens$", text, re.M)


def test_an_answer_that_is_piped_is_plain_and_complete():
    question = "plan --student 300M --budget '100 h100-hours' --teacher Qwen/Qwen3-0.6B-Base"
    rows = list(csv.DictReader(io.StringIO(run(f"{question} --csv"))))
    assert [row["way"] for row in rows] == ["direct", "Qwen/Qwen3-0.6B-Base"]
    assert float(rows[0]["device_hours"]) == pytest.approx(100)
    answer = json.loads(run(f"{question} --json"))
    assert answer["spending"]["dollars"] == pytest.approx(249)
    assert answer["distillations"][0]["verdict"] in ("distil", "train directly", "too close to call")
    ends = json.loads(run("plan --student 1B --budget '$249 on h100:$2490 on h100' --json"))["spending"]
    assert [end["device_hours"] for end in ends] == pytest.approx([100, 1000])


@pytest.mark.parametrize("command", [["plan", "--student", "300M", "--budget", "1e21"], ["plan", "--help"]])
def test_no_color_is_heeded_on_a_terminal(command):
    main, side = pty.openpty()
    environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    done = subprocess.Popen(
        [sys.executable, "-m", "distlaw", *command], stdout=side, stderr=side, env=environment
    )
    os.close(side)
    text = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the terminal is gone with its last process
            break
        if not part:
            break
        text += part
    os.close(main)
    assert done.wait(timeout=60) == 0
    assert b"distil" in text.lower()
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|38|48)[;m]", text)


WRONG = {
    "--budget '$'": "cannot read '\\$'; write 1e21, '1000 h100-hours'",
    "--budget '$5000'": "names no device, and dollars buy compute on a device; .*--gpu h100",
    "--budget '5000 EUR'": "no amount of US dollars",
    "--budget '€5000 on h100'": "no amount of US dollars",
    "--budget '1000 GPU hours'": "names no device, and these hours are of a device",
    "--budget '1000 h1000-hours'": "no hardware h1000: did you mean h100",
    "--budget '10^21'": "cannot read '10\\^21' .*written 1e21",
    "--budget '$5000' --gpu h20": "no list price of h20 is on record; give one \\(--price 2.50\\)",
    "--budget 1e21 --teacher Qwen/Qwen3-9B": "failed .*did you mean Qwen/Qwen3-8B",
    "--budget 1e21 --teacher Qwen3-9B": "none of the .* open models in the list; did you mean Qwen/Qwen3-8B",
    "--budget 1e21 --teacher nobody/nothing --teacher-loss 2": "download from the hub failed",
    "--budget 1e21 --teacher bartowski/Qwen3-8B-GGUF": "is in the GGUF format, which has no config.json",
    "--budget 1e21 --teacher 8B": "give the tokens it was trained on \\(--teacher-tokens 15T\\) or its loss",
    "--budget 1e21 --teacher 8B --teacher-tokens 15": "15 tokens are too few to train 8e\\+09 parameters",
    "--budget 1e21 --teacher 8B --teacher-loss 1.2": "below the irreducible loss",
    "--budget 1e21 --teacher 8B --teacher-loss 12": "above the .* of guessing",
    "--budget 1e21 --teacher 8B --teacher-tokens 1T --teacher-active-params 9B": "active_params .* at most params",
    "--budget 1e21 --teacher openai/gpt-oss-20b": "its training tokens are not published",
}  # fmt: skip


def test_a_mixture_that_does_not_say_how_many_experts_a_token_meets_is_refused(tmp_path):
    """Else transformers would put its default for the type, whatever the model is."""
    config = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"has experts \(num_local_experts 8\), but does not say how many"):
        run(f"plan --student 300M --budget 1e21 --teacher {tmp_path} --teacher-loss 2.1")


@pytest.mark.parametrize(("given", "says"), WRONG.items())
def test_bad_input_gets_a_sentence_in_the_words_of_the_command_line(given, says, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as raised:
        run(f"plan --student 300M {given}")
    told = with_options(str(raised.value))
    assert re.search(says, told), told
    assert "`" not in told.replace("`distlaw teachers`", "")
