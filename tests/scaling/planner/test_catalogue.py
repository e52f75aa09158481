from dataclasses import replace

import pytest

from scaling import InputError, Question, plan, read_catalogue
from scaling.costs.flops import Architecture


def write(tmp_path, text):
    path = tmp_path / "teachers.csv"
    path.write_text(text)
    return path


def test_reads_sizes_as_people_write_them(tmp_path):
    path = write(tmp_path, "Name,PARAMS, loss,tokens,vocab\nsmall,1.5B,2.2,,32768\nlarge,7B,,2T,\n")
    small, large = read_catalogue(path)
    assert (small.params, small.loss, small.vocab) == (1.5e9, 2.2, 32768)
    assert (large.tokens, large.loss) == (2e12, None)


def test_a_mixture_of_experts_costs_what_a_token_meets(tmp_path):
    """Qwen3-30B-A3B: priced by all of its parameters its logits cost 8.2 times what they do."""
    text = "name,params,tokens,active_params,forward_flops\na,29.9B,36T,,\nb,29.9B,36T,3.04B,\nc,29.9B,36T,,6.9e9\n"
    dense, active, told = read_catalogue(write(tmp_path, text))
    paper = Architecture()
    assert active.logit_flops(paper) == paper.forward_flops(3.04e9)
    assert 8 < dense.logit_flops(paper) / active.logit_flops(paper) < 10
    assert told.logit_flops(paper) == 6.9e9
    plans = {
        name: plan(Question(student_params=1e9, budget=3e21, teachers=(teacher,)))
        for name, teacher in (("dense", dense), ("active", active), ("told", told))
    }
    ways = {name: each.distillations[0] for name, each in plans.items()}
    for name, teacher in (("dense", dense), ("active", active), ("told", told)):
        expected = teacher.logit_flops(paper) * ways[name].tokens
        assert ways[name].logits_flops == pytest.approx(expected, rel=1e-9)
        assert ways[name].flops == pytest.approx(3e21, rel=1e-6)
    assert ways["active"].loss.value < ways["dense"].loss.value
    assert ways["active"].teacher_loss == ways["dense"].teacher_loss  # predicted from all of its parameters


def test_logits_may_be_served_for_nothing(tmp_path):
    (free,) = read_catalogue(write(tmp_path, "name,params,loss,dollars_per_million_tokens\na,7B,2.0,0\n"))
    assert free.dollars_per_million_tokens == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,loss\na,2\n", "no column params"),
        (
            "name,total_params,loss\na,3B,2\n",
            r"no column params; rename total_params to params .of all experts.;",
        ),
        ("name,params,total_params,loss\na,1B,3B,2\n", "keep one of total_params and params .of all experts"),
        (
            "Model,N,val loss\na,3B,2\n",
            "name, params; rename model to name; rename n to params .*val loss to loss;",
        ),
        ("name,params,colour\na,1B,red\n", "unknown column colour"),
        ("name,params,loss\n", "no teachers"),
        ("name,params,loss\na,,2.1\n", "row 2: name and params"),
        ("name,params,loss,tokens\na,1B,,\n", "row 2: teacher a: give its loss"),
        ("name,params,loss\na,7,2.1\n", "row 2: teacher a: params: 7 parameters is no size"),
        ("name,params,loss\na,big,2.1\n", "row 2, params: cannot read 'big'"),
        ("name,params,loss\na,7B,2,1\n", "row 2: more cells than columns, '1' last"),
        ('name,params,loss\na,"7,5B",2.1\n', "row 2, params: cannot read '7,5B'.* write 7.5B"),
        ("name,params,loss,tokens\na,7B,2,1\n", "row 2: teacher a: 1 tokens are too few"),
        ("name,params,loss,vocab\na,7B,2.1,32k\n", "row 2, vocab: cannot read '32k'"),
        ("name,params,params,loss\na,7B,1B,2.1\n", "two columns are called params"),
        ("name,params,loss\na,7B,2 tokens\n", "row 2, loss: '2 tokens' is in tokens"),
        ("name,params,loss,active_params\na,7B,2,8B\n", "row 2: teacher a: active_params .* must be at most"),
        (
            "name,params,loss,active_params\na,30B,2,3\n",
            "row 2: teacher a: active_params: 3 parameters is no size",
        ),
        (
            "name,params,loss,forward_flops\na,8B,2,16\n",
            "row 2: teacher a: forward_flops: 16 FLOPs .* too few",
        ),
        ("name,params,loss\nb,1B,2\na,1B,-2\n", "row 3, loss: must be positive"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_catalogue(write(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_catalogue(tmp_path / "none.csv")


def test_what_a_scenario_would_charge_of_a_teacher_that_exists_is_said():
    def warnings(**asked):
        question = Question(student_params=3e8, budget=1e21, teachers=("Qwen/Qwen3-8B-Base",), **asked)
        return plan(replace(question, architecture=Architecture(vocab=151936))).warnings

    told = "teacher trained, logits free: a teacher that exists is trained already, so no training is charged"
    assert told in warnings(scenarios="teacher_pretraining")
    assert any(
        "under one scenario" in each for each in warnings(scenarios=("best_case", "teacher_inference"))
    )
    quiet = (*warnings(), *warnings(scenarios="best_case"), *warnings(scenarios="teacher_inference"))
    assert not any("scenario" in each or "trained already" in each for each in quiet)
