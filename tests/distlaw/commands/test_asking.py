"""Questions as people ask them: budgets in hours and dollars, teachers by size and by name."""

import json

import pytest
import typer
from typer.testing import CliRunner

from distlaw.commands import teacher
from distlaw.commands.planner import plan, teachers
from distlaw.serve.requests import span
from scaling import InputError, Question

H100_HOUR = 989.4e12 * 0.4 * 3600
CONFIG = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


def run(*arguments: str) -> str:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    for module in (plan, teacher, teachers):
        module.register(app)
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def ask(*arguments: str) -> dict:
    return json.loads(run("plan", "--student", "300M", "--json", *arguments))


@pytest.fixture
def model(tmp_path):
    """A directory that holds nothing but a configuration."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("given", "hours"),
    {
        ("--budget", "1000 h100-hours"): 1000,
        ("--budget", "1000 GPU hours", "--gpu", "h100"): 1000,
        ("--budget", "8 h100 for 5 days"): 960,
        ("--budget", "$2490 on h100"): 1000,
        ("--budget", "$2490", "--gpu", "H100 SXM"): 1000,
        ("--budget", "$1000", "--gpu", "h100", "--price", "2"): 500,
        ("--budget", "100 h100-hours", "--mfu", "0.2"): 100,
        ("--budget", "100 h100-hours", "--mfu", "20%"): 100,
        ("--budget", "$1000", "--gpu", "h100", "--price", "$2"): 500,
    }.items(),
)
def test_a_budget_is_the_same_in_every_unit(given, hours):
    answer = ask(*given)
    share = 0.5 if "--mfu" in given else 1.0
    assert answer["spending"]["device_hours"] == pytest.approx(hours)
    assert answer["spending"]["flops"] == pytest.approx(hours * H100_HOUR * share)
    assert answer["budget"] == pytest.approx(answer["spending"]["flops"])
    assert answer["bills"][0]["device_hours"] == pytest.approx(hours)


def test_a_budget_is_echoed_in_all_three_units():
    text = run("plan", "--student", "300M", "--budget", "1000 h100-hours")
    assert "1.42e21 FLOPs (1.42 ZFLOP) = 1K h100-hours = $2.49K" in text


def test_a_range_in_hours_is_a_range():
    text = run("plan", "--student", "1B", "--budget", "100 h100-hours:1000 h100-hours")
    assert "1.42e20" in text and "1.42e21" in text
    assert text == run("plan", "--student", "1B", "--budget", "100 h100-hours to 1000 h100-hours")
    dollars = run("plan", "--student", "1B", "--budget", "$249:$2490", "--gpu", "h100")
    assert "- budgets: 1.42e20 FLOPs (0.142 ZFLOP) = 100 h100-hours = $249, to 1.42e21" in dollars
    flops = run("plan", "--student", "1B", "--budget", "1e20:1e21", "--gpu", "h100")
    assert "- budgets: 1e20 FLOPs (0.1 ZFLOP) = 70.2 h100-hours" in flops


def test_python_takes_the_same_budgets():
    assert Question(student_params=3e8, budget="1000 h100-hours").budget == pytest.approx(1000 * H100_HOUR)
    with pytest.raises(InputError, match="budget: '\\$5000' names no device"):
        Question(student_params=3e8, budget="$5000")


def test_a_teacher_is_given_by_size_by_name_or_by_directory(model):
    sized = ask("--budget", "1e21", "--teacher", "7B", "--teacher-tokens", "140B")
    assert sized["distillations"][0]["teacher_params"] == 7e9
    listed = ask("--budget", "1e21", "--teacher", "Qwen/Qwen3-8B-Base")
    assert listed["distillations"][0]["teacher_params"] == 6_946_075_648
    assert listed["distillations"][0]["teacher_tokens"] == 36e12
    counted = ask("--budget", "1e21", "--teacher", model, "--teacher-loss", "2.2")
    assert counted["distillations"][0]["teacher_params"] == 440_467_456


def test_the_students_vocabulary_is_the_teachers():
    """Logits over five times as many tokens: what the student computes in the same budget is less."""
    asked = ("plan", "--student", "300M", "--budget", "1e21", "--details")
    own = run(*asked, "--teacher", "7B", "--teacher-tokens", "140B")
    listed = run(*asked, "--teacher", "Qwen/Qwen3-8B")
    assert "vocabulary 32768" in own and "needs its teacher's tokenizer" not in own
    assert "vocabulary 151936" in listed
    assert "! the student needs its teacher's tokenizer (151936 tokens)" in listed
    assert "! Qwen/Qwen3-8B: tuned after pretraining" in listed


@pytest.mark.parametrize(
    ("given", "says"),
    {
        ("--budget", "$5000"): "names no device",
        ("--budget", "1000 GPU hours"): "names no device",
        ("--budget", "$5000", "--gpu", "mi300x"): "no list price of mi300x",
        ("--budget", "$5000", "--gpu", "h1000"): "did you mean h100",
        ("--budget", "1000 h100-hours", "--gpu", "h200"): "names h100, but the device given is h200",
        ("--budget", "1e21", "--price", "2"): "goes with --gpu",
        ("--budget", "1000:10000 h100-hours"): "'1000' has no unit",
        ("--budget", "1000 cray-hours"): "--budget: no hardware cray",
        ("--budget", "1000 h100-hours", "--mfu", "40"): "--mfu: must be a share from 0 to 1, such as 0.4 or 40%",
        ("--budget", "1000 h100-hours", "--peak", "989"): "write 989e12 or '989 TFLOP/s'",
        ("--budget", "1e21", "--gpu", "v100", "--precision", "bf16"): "v100 has no bf16 peak",
        ("--budget", "1e21", "--teacher", "8B"): "give the tokens it was trained on",
        ("--budget", "1e21", "--teacher", "Qwen3-9B", "--teacher-loss", "2.1"): "did you mean Qwen/Qwen3",
        ("--budget", "1e21", "--teacher-loss", "2.1"): "goes with --teacher",
        ("--budget", "1e21", "--teacher", "x/Qwen3-8B-GGUF", "--teacher-loss", "2"): "in the GGUF format",
        ("--budget", "1e21", "--teacher", "7B", "--teacher", "8B", "--teacher-loss", "2"): "is of one --teacher",
        (
            "--budget", "1e21", "--teacher", "Qwen3-8B-Base", "--teacher", "Llama-3.1-8B",
        ): "have different vocabularies",
    }.items(),
)  # fmt: skip
def test_what_contradicts_itself_or_is_not_known_is_refused(given, says):
    with pytest.raises(InputError, match=says):
        ask(*given)


def test_ranges_over_http_are_in_hours_too():
    ends = span(("100 h100-hours", "1000 h100-hours"), "budgets", "FLOPs")
    assert ends == pytest.approx((100 * H100_HOUR, 1000 * H100_HOUR))


def test_python_takes_teachers_by_the_names_of_the_list():
    (teacher,) = Question(student_params=3e8, budget=1e21, teachers=["Qwen/Qwen3-8B-Base"]).teachers
    assert (teacher.params, teacher.tokens, teacher.vocab) == (6_946_075_648, 36e12, 151936)
    with pytest.raises(InputError, match="'nobody' is no size and none of the"):
        Question(student_params=3e8, budget=1e21, teachers=["nobody"])


def test_models_with_names_near_an_unknown_one_are_offered(monkeypatch):
    def unreachable(model, where):
        raise InputError(f"{where}: no directory {model}, and the download from the hub failed")

    monkeypatch.setattr("sweeps.pretrained.count.card_of_model", unreachable)
    with pytest.raises(InputError, match="download from the hub failed; did you mean meta-llama/Llama"):
        ask("--budget", "1e21", "--teacher", "meta-llama/Llama-9-8B")


def test_open_models_are_listed():
    text = run("teachers", "qwen3-3")
    assert [line.split()[0] for line in text.splitlines()[2:]] == [
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3-30B-A3B-Base",
    ]
    assert len(json.loads(run("teachers", "--json"))["teachers"]) >= 60
    with pytest.raises(InputError, match="no open model's name holds 'gpt-5'"):
        run("teachers", "gpt-5")


def test_a_model_is_counted_without_weights(model):
    assert "440M parameters without embeddings (440,467,456)" in run("teacher", "count", model)
    counted = json.loads(run("teacher", "count", model, "--context", "4096", "--json"))
    assert (counted["total_params"], counted["context"]) == (596_049_920, 4096)
