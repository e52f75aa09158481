"""The planner's commands, from text to text; and their help, which changes only on purpose."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distlaw.commands.planner import calibrations, compare, plan, predict
from scaling import InputError
from scaling.costs.scenarios import DESCRIPTIONS

HELP = Path(__file__).with_name("plan_help.txt")
COMMANDS = ("plan", "predict", "compare", "calibrations")
B100 = "busbridge2025-figure1-runs"


def application():
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    for module in (plan, predict, compare, calibrations):
        module.register(app)
    return app


def run(*arguments):
    result = CliRunner().invoke(application(), [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_tolerance_is_answered_in_brief_too():
    asked = ("plan", "--student", "300M", "--budget", "1e21", "--tolerance", "0.005")
    brief = run(*asked, "--scenario", "teacher_inference")
    assert "~ teacher exists, logits paid: within 0.005 nats of the optimum: teacher params" in brief
    assert (
        len(re.findall(r"^~   \d+ layers, .* teacher on .* tokens: loss 2\.\d{4}$", brief, re.MULTILINE)) == 3
    )


def test_help_is_what_it_was():
    """Write the snapshot anew with UPDATE_SNAPSHOTS=1 when the change is meant."""
    texts = []
    for command in COMMANDS:
        result = CliRunner().invoke(
            application(), [command, "--help"], env={"COLUMNS": "100", "TERM": "dumb"}
        )
        texts.append(result.output)
    text = "\n".join(texts)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        HELP.write_text(text)
    assert text == HELP.read_text()


def test_the_verdict_comes_first_then_the_table():
    lines = run("plan", "--student", "300M", "--budget", "1e21").splitlines()
    assert lines[0].startswith("Distil: teacher and logits free.")
    assert lines[3].split() == ["way", "verdict", "P", "loss", "gain", "tokens", "teacher", "N,", "D"]
    assert lines[5].startswith("teacher and logits free") and lines[9].startswith("direct training")
    assert lines[11].startswith("300M student, 1e21 FLOPs (1 ZFLOP)")


def test_details_hold_what_the_brief_answer_leaves_out():
    lines = run("plan", "--student", "300M", "--budget", "1e21", "--details").splitlines()
    assert "P(distilling is better)" in lines[0]
    assert "300M student, 1e21 FLOPs (1 ZFLOP)" in lines[2]
    header = "way loss (90 %) published gain P(distil) student tokens teacher compute %"
    assert lines[4].split() == header.split()
    assert lines[6].startswith("direct training")
    assert any(
        line.startswith("~ teacher and logits free: 90 % intervals of the decisions") for line in lines
    )
    with pytest.raises(InputError, match="--details"):
        run("plan", "--student", "300M", "--budget", "1e21", "--details", "--json")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize(
    "asked",
    [
        "--student 300M --budget 1e21",
        "--budget 1e22 --lifetime-tokens 1T --gpu h100",
        "--student 300M --target-loss 2.4",
        "--family 100M,300M,1B,2B,3B --budget 3e21",
        "--student 300M --budget 1e21 --unique-tokens 26B",
        "--student 300M --budget 1e21 --teacher Qwen3-8B",
        "--student 300M --budget 1e21 --vocab 50257 -c busbridge2025-table6",
    ],
)
def test_no_line_is_wider_than_the_terminal(asked, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("plan", *asked.split()).splitlines()
    assert max(map(len, lines)) <= width
    table = [line for line in lines if line.startswith("direct training")]
    assert (table and "way" in "".join(lines)) or "gain (P)" in "".join(lines)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_range_is_as_wide_as_the_terminal_and_shows_every_way(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = run("plan", "--student", "300M", "--budget", "1e20:1e21")
    assert max(map(len, text.splitlines())) <= width
    header = " ".join(line for line in text.splitlines() if line.startswith("FLOPs "))
    assert all(words in header for words in ("direct training", *DESCRIPTIONS.values()))


@pytest.mark.parametrize(
    "asked",
    [
        "calibrations",
        "teachers",
        "predict --student 300M --tokens 20 --teacher-loss 2.3",
    ],
)
def test_lists_and_predictions_fit_80_columns(asked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run(*asked.split()).splitlines())) <= 80


@pytest.mark.parametrize(
    ("given", "says"),
    {
        ("--vocab", "0"): "must be 1 or more, not 0",
        ("--vocab", "50k"): "write all digits: 4000, 4096",
        ("--context", "-1"): "must be 1 or more, not -1",
        ("--aspect-ratio", "0"): "must be positive, not 0",
    }.items(),
)
def test_numbers_that_count_flops_are_refused_by_their_option(given, says):
    result = CliRunner().invoke(
        application(), ["plan", "--student", "300M", "--budget", "1e21", *given], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 2 and says in result.output and given[0] in result.output


def test_what_the_plan_says_of_scenarios_and_storage():
    once = run("plan", "--student", "300M", "--budget", "1e21", "--scenario", "best_case")
    assert once == run("plan", "--student", "300M", "--budget", "1e21", *["--scenario", "best_case"] * 2)
    bound = ("--constrain", "teacher_loss<=1.0")
    assert "! teacher and logits free: nothing within" in run(
        "plan", "--student", "300M", "--budget", "1e21", *bound
    )
    stored = ("plan", "--student", "300M", "--budget", "1e21", "--scenario", "best_case", "--store-logits")
    assert "teacher and logits free: 52,300 TB" in run(*stored, "full")
    with pytest.raises(InputError, match=r"--store-logits: must be a whole number, not '64\.7'"):
        run(*stored, "64.7")


def test_a_size_left_open_stands_beside_its_teacher_in_80_columns():
    lines = run("plan", "--budget", "1e22").splitlines()
    header = next(line for line in lines if line.startswith("way "))
    assert header.split() == ["way", "P", "loss", "gain", "student", "tokens", "teacher", "N,", "D"]


def test_which_teacher_says_whether_any_pays(tmp_path):
    path = tmp_path / "teachers.csv"
    path.write_text("name,params,tokens\none,1B,500B\nseven,7B,140B\n")
    asked = ("plan", "--student", "300M", "--budget", "1e21", "--teachers", path)
    assert run(*asked).startswith("No teacher clearly pays; too close to call: one.")
    path.write_text("name,params,tokens\nseven,7B,140B\n")
    assert run(*asked).startswith("No teacher pays: train directly.")
    given = run(*asked, "--scenario", "best_case")
    assert given.startswith("Distil from seven.")


def test_a_family_is_a_table_of_gains():
    lines = run("plan", "--family", "300M,1B", "--budget", "3e21").splitlines()
    header = next(k for k, line in enumerate(lines) if line.startswith("gain (P)"))
    assert lines[header].split() == ["gain", "(P)", "300M", "student", "1B", "student"]
    assert [line.split(",")[0].split("  ")[0] for line in lines[header + 2 : header + 7]] == [
        "direct training",
        "teacher and logits free",
        "teacher exists",
        "teacher trained",
        "teacher trained",
    ]


def test_json_and_csv_carry_full_numbers():
    content = json.loads(run("plan", "--student", "300M", "--budget", "1e21", "--json", "--gpu", "h100"))
    assert content["direct"][0]["params"] == 3e8
    assert len(content["distillations"]) == 4
    assert {"verdict", "loss", "gain", "ranges", "by_law", "outside"} <= set(content["distillations"][0])
    assert content["bills"][0]["device_hours"] == pytest.approx(1e21 / (989.4e12 * 0.4 * 3600))
    rows = list(csv.DictReader(io.StringIO(run("plan", "--student", "300M", "--budget", "1e21", "--csv"))))
    assert float(rows[1]["loss_nats"]) == content["distillations"][0]["loss"]["value"]


def test_constraints_scenarios_and_counting_reach_the_planner():
    content = json.loads(
        run(
            *("plan", "--student", "1B", "--budget", "1e22", "--json", "--flops-rule", "6nd"),
            *("--constrain", "teacher_params<=2B", "--constrain", "teacher_tokens=1T"),
            *("--scenario", "amortised:1,0.25", "--law", "effective-tokens-sharp"),
        )
    )
    (way,) = content["distillations"]
    assert way["name"] == "amortised:1,0.25"
    assert way["teacher_params"] <= 2e9
    assert way["teacher_tokens"] == 1e12
    assert way["student_flops"] == pytest.approx(6 * 1e9 * way["tokens"])
    assert content["law"] == "effective-tokens-sharp"


def test_a_catalogue_of_teachers(tmp_path):
    path = tmp_path / "teachers.csv"
    path.write_text("name,params,loss,dollars_per_million_tokens\nlocal,2B,2.1,\nserved,7B,2.0,0.05\n")
    text = run("plan", "--student", "300M", "--budget", "1e21", "--teachers", path)
    assert "local" in text
    assert "served" in text


def test_a_target_a_family_and_a_lifetime():
    assert "Cheapest way to a loss of 2.4" in run("plan", "--student", "300M", "--target-loss", "2.4")
    family = run(*["plan", "--family", "300M,1B", "--budget", "3e21", "--scenario", "teacher_pretraining"])
    assert "teacher trained, logits free" in family and "1B student" in family
    served = json.loads(
        run(*["plan", "--budget", "1e22", "--lifetime-tokens", "1T", "--json", "--scenario", "best_case"])
    )
    assert served["distillations"][0]["serving_flops"] > 0


def test_a_range_of_budgets_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    figure = tmp_path / "frontier.png"
    text = run("plan", "--student", "1B", "--budget", "1e20:1e24", "--plot", figure)
    assert text.splitlines()[1].startswith("teacher exists, logits paid:")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_range_of_budgets_keeps_the_warnings_of_its_calibration():
    text = run("plan", "--student", "1B", "--budget", "1e20:1e22", "-c", "busbridge2025-table6")
    assert "! The coefficient B'" in text


def test_what_was_bought_is_in_the_bill(tmp_path):
    path = tmp_path / "teachers.csv"
    path.write_text("Name,Params,Loss,dollars_per_million_tokens\nserved,7B,2.0,0.2\n")
    asked = ("plan", "--student", "1B", "--budget", "1e21", "--teachers", path)
    assert "Not in this comparison: up to $27.2K" in run(*asked, "--details").splitlines()[0]
    assert "Not in this comparison: up to $27.2K" in run(*asked).replace("\n", " ")
    content = json.loads(run(*asked, "--gpu", "h100", "--json"))
    (way,) = content["distillations"]
    direct, served = content["bills"]
    assert way["verdict"] == "train directly"
    assert served["dollars"] == pytest.approx(direct["dollars"])  # equal budgets cost equal money
    assert served["dollars"] > way["dollars"] > 0.9 * served["dollars"]
    rows = list(csv.DictReader(io.StringIO(run(*asked, "--gpu", "h100", "--csv"))))
    assert float(rows[1]["device_hours"]) == pytest.approx(served["device_hours"])


def test_storage_of_logits_is_said():
    text = run("plan", "--student", "300M", "--budget", "1e21", "--store-logits", "128")
    assert "storing logits: 1.03K bytes/token" in text


def test_predict_says_what_every_law_says():
    text = run(
        *["predict", "--student", "300M", "--tokens", "20:1", "--teacher", "3B", "--teacher-tokens", "60B"]
    )
    for name in ("supervised", "teacher", "published", "effective-tokens-sharp"):
        assert name in text
    losses = json.loads(run(*["predict", "--student", "1B", "--tokens", "20B", "--json"]))["losses"]
    assert losses["supervised"]["value"] == pytest.approx(2.374692, abs=1e-6)


def test_predict_knows_open_models_by_name():
    asked = ["predict", "--student", "1B", "--tokens", "20B", "--json", "--teacher"]
    named = json.loads(run(*asked, "pythia-6.9b"))
    spelled = json.loads(run(*asked, str(named["teacher_params"]), "--teacher-tokens", "299.9B"))
    assert named == spelled and named["teacher_tokens"] == 299.9e9
    assert "dense model of all their parameters" in json.loads(run(*asked, "DeepSeek-V3"))["warnings"][-1]


def test_compare_puts_calibrations_side_by_side():
    text = run(*["compare", "--student", "1B", "--budget", "1e22", "--scenario", "best_case"])
    for name in ("besiroglu2024", "busbridge2025-table6", "effective-tokens-sharp"):
        assert name in text
    assert re.match(r"teacher and logits free: \w.* \(\d of 4\)\.\n", text)
    assert "! busbridge2025-table6: The coefficient B'" in text
    assert "! distlaw2026-permissive: left out, the question lies" in text
    small = ["compare", "--student", "100k", "--budget", "1e13", "--scenario", "best_case"]
    assert "! hoffmann2022: left out" in run(*small)
    assert "hoffmann2022    " in run(*small, "-c", "hoffmann2022", "-c", "distlaw2026-permissive")
    assert "another tokenizer or corpus" in text
    alone = run(*["compare", "--student", "1B", "--budget", "1e22", "-c", "besiroglu2024"])
    assert alone.startswith("Direct training only")


def test_calibrations_are_listed_and_shown(tmp_path):
    assert "busbridge2025-figure1-curves" in run("calibrations")
    assert "misprinted" in run("calibrations", "busbridge2025-table6")
    copy = tmp_path / "copy.json"
    copy.write_text(run("calibrations", B100, "--json"))
    assert "354 runs" in run("calibrations", copy)


def test_calibrations_are_ranked_for_a_question():
    asked = ["calibrations", "--student", "1B", "--tokens", "20:1", "--text", "refinedweb"]
    text = run(*asked)
    assert text.startswith("For 1B parameters, 20B tokens, text refinedweb: porian2024-refinedweb fits best")
    assert text.index("porian2024-refinedweb   ") < text.index("gadre2024-refinedweb   ")
    found = json.loads(run(*asked, "--json"))
    assert found["calibrations"][0]["reasons"].startswith("the text asked about, 1.1x outside its runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("calibrations --student 1B", "to rank calibrations give --student and --tokens"),
        ("plan --student 300X --budget 1e21", "--student: cannot read '300X'"),
        ("plan --student 300M --budget zero", "--budget: cannot read 'zero'"),
        ("plan --student 300M --budget 0", "--budget: must be positive"),
        ("plan --student 300M --budget 1e22:1e20", "LOW below HIGH"),
        ("plan", "give a budget or a target loss(.|\\n)*--budget 1e21\\n.*--target-loss 2.4"),
        ("plan --student 300M", "give a budget or a target loss"),
        ("plan --student 300M --budget 1e21 --constrain teacher<70B", "write VARIABLE<=VALUE"),
        ("plan --student 300M --budget 1e21 --calibration nope", "neither a file nor one of"),
        ("plan --student 300M --budget 1e21 --scenario free", "unknown scenario 'free'"),
        ("plan --student 300M --budget 1e21 --scenario amortised:2,0", "must be a share from 0 to 1"),
        ("plan --student 300M --budget 1e21 --gpu abacus", "no hardware abacus"),
        ("plan --student 300M --target-loss 2.4 --plot x.png", "needs a --budget"),
        ("predict --student 300M --tokens 6B --teacher 3B", "both its parameters and its tokens"),
        ("predict --student 300M --tokens 6B --teacher nobody/nothing", "--teacher"),
        ("predict --student 300M --tokens 6B --teacher Qwenn3-8B", "none of the"),
        ("plan --student 7 --budget 1e21", "write 7B"),
        ("plan --student 0,3B --budget 1,5e21", "--budget: cannot read '1,5e21' .* write 1.5e21"),
        ("plan --student 0,3B --budget 1e21", "--student: cannot read '0,3B' .* write 0.3B"),
        ("plan --student 1B --target-loss 2,5", "--target-loss: cannot read '2,5' .* write 2.5"),
        ("plan --student 1B --target-loss 1.5", "1.5 nats/token cannot be reached; lowest: [0-9.]+ .direct"),
        ("plan --student 1B --budget 1e21 --gpu h100 --mfu 0,4", "--mfu: cannot read '0,4' .* write 0.4"),
        ("plan --student 1B --budget 26Btokens", "--budget: .* is in tokens; this takes FLOPs"),
        ("plan --family 1,5B,300M --budget 1e21", "--family: 1,5B is one number, or two"),
        ("predict --student 1B --tokens 6B --teacher-tokens 20:1", "--teacher-tokens: .* size is not known"),
        ("plan --student 1B --budget 1e300", "budget: 1e300 FLOPs is beyond"),
        ("plan --student 1B --budget 1e21 --mfu 0.5 --count 8", "--mfu, --count: goes with --gpu"),
        ("plan --student 1B --budget 1e21 --gpu h100 --price 0", "--price: must be positive"),
        ("plan --student 1B --budget 1e20:1e21 --tolerance 0.1", "--tolerance: goes with one budget"),
        ("plan --student 1B --budget 1e21 --csv --json", "--csv: goes without --json"),
        ("predict --student 7 --tokens 6B", "write 7B"),
        ("predict --student 1B --tokens 6B --teacher-loss 1.1", "below the irreducible loss of 1.22"),
        ("calibrations nope", "neither a file nor one of"),
    ],
)
def test_bad_input_gets_its_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments.split())


def test_planning_loads_nothing_heavy():
    script = (
        "import sys; from distlaw.commands.planner.plan import print_plan; import scaling\n"
        "question = scaling.Question(student_params=3e8, budget=1e21)\n"
        f"print_plan(scaling.plan(question, scaling.Calibration.load('{B100}')))\n"
        "heavy = {'torch', 'ray', 'transformers', 'pandas', 'matplotlib', 'scipy.optimize', 'optuna', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_the_first_example_is_no_extrapolation_unless_asked():
    said = run("plan", "--student", "300M", "--budget", "1e21")
    assert "xtrapolated" not in said
    asked = run("plan", "--student", "300M", "--budget", "1e21", "--extrapolate")
    assert "Extrapolated up to 10x beyond the fitted runs." in asked.replace("\n", " ")
    assert "917M, 5.12T" in asked


def test_numbers_for_the_flops_can_be_given_and_are_stated():
    said = run(
        *("plan", "--student", "300M", "--budget", "1e21", "--vocab", "50257", "--aspect-ratio", "64"),
        "--details",
    )
    assert "context 4096, vocabulary 50257, aspect ratio 64 (all given)" in said
    content = json.loads(run("plan", "--student", "300M", "--budget", "1e21", "--vocab", "50257", "--json"))
    assert content["accounting"]["vocab"] == 50257
    assert content["accounting"]["origins"]["vocab"] == "given"


def test_a_range_of_budgets_needs_no_distillation_law():
    said = run("plan", "--budget", "1e20:1e22", "-c", "hoffmann2022")
    assert said.startswith("Direct training only: the calibration has no distillation law.")
    assert "- FLOPs are 6ND" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "plan --student 1.3B --budget 1e22 --lifetime-tokens 1T --unique-tokens 26B "
            "--constrain teacher_params<=70B",
            "1.3B student, 1e22 FLOPs (10 ZFLOP), teacher params to 70B, serving 1T tokens, 26B distinct tokens",
        ),
        ("plan --student 1B --budget 1e20:1e22", "1B student, 1e20 to 1e22 FLOPs; calibration"),
        (
            "plan --family 100M,300M --weights 1,2 --budget 1e21",
            "100M, 300M students, weights 1, 2, 1e21 FLOPs",
        ),
        ("predict --student 1.3B --tokens 20:1", "1.3B student, 26B tokens; calibration"),
        ("predict --student 1B --tokens 20B --teacher 3B --teacher-tokens 20:1", "; teacher 3B, 60B tokens;"),
        ("compare --student 1B --budget 1e22 -c hoffmann2022", "1B student, 1e22 FLOPs (10 ZFLOP)."),
    ],
)
def test_the_question_is_repeated_as_it_was_read(arguments, words):
    assert words in run(*arguments.split()).replace("\n", " ")


def test_json_holds_the_numbers_that_were_read():
    asked = json.loads(run("plan", "--student", "1.3B", "--budget", "1e22", "--json"))["question"]
    assert (asked["student_params"], asked["budget"], asked["student_unique_tokens"]) == (1.3e9, 1e22, None)
    asked = json.loads(run("predict", "--student", "1.3B", "--tokens", "20:1", "--json"))
    assert (asked["student_params"], asked["student_tokens"]) == (1.3e9, 26e9)
    asked = json.loads(run("compare", "--student", "1B", "--budget", "1e22", "-c", "hoffmann2022", "--json"))
    assert (asked["student_params"], asked["budget"]) == (1e9, 1e22)
