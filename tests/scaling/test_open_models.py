"""Open models by name: the shipped list, how it is searched, and teachers made from it."""

import pytest

from scaling import InputError
from scaling.open_models import find_open_model, is_post_trained, open_models
from scaling.planner.teacher_catalogue import ask_teacher, parse_catalogue


def test_the_list_holds_together():
    models = open_models()
    assert len(models) >= 60 and len({model.name for model in models}) == len(models)
    for model in models:
        assert 0 < model.params < model.total_params and model.source and model.shape_source
        assert model.total_params - model.params <= 2.1 * model.vocab * 20_000
        assert model.active_params is None or model.active_params < model.params
        assert model.tokens is None or 1e10 < model.tokens < 1e14
        assert find_open_model(model.name) is model


def test_parameters_are_those_that_the_papers_print():
    """Pythia (arXiv 2304.01373), Table 1, non-embedding; totals of the published weights."""
    assert find_open_model("EleutherAI/pythia-410m").params == 302_311_424
    assert find_open_model("EleutherAI/pythia-12b").params == 11_327_027_200
    assert find_open_model("Qwen/Qwen3-8B").total_params == 8_190_735_360
    assert find_open_model("Llama-3.1-405B").total_params == 405_853_388_800
    assert find_open_model("deepseek-v3").active_params == pytest.approx(35.7e9, rel=1e-3)


@pytest.mark.parametrize(
    ("asked", "found", "tuned"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", True),
        ("qwen3-8b-base", "Qwen/Qwen3-8B-Base", False),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B", True),
        ("gemma-3-4b-it", "google/gemma-3-4b-pt", True),
        ("Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf", True),
    ],
)
def test_a_model_is_found_by_what_people_call_it(asked, found, tuned):
    model = find_open_model(asked)
    assert model is not None and model.name == found
    assert is_post_trained(asked, model) is tuned


def test_a_teacher_is_asked_about_as_people_speak_of_it():
    sized = ask_teacher("8B", tokens=15e12)
    assert (sized.params, sized.tokens, sized.vocab) == (8e9, 15e12, None)
    measured = ask_teacher("8B params", loss=2.1)
    assert (measured.loss, measured.tokens) == (2.1, None)
    named = ask_teacher("Qwen/Qwen3-30B-A3B-Base")
    assert (named.active_params, named.tokens, named.vocab) == (2_730_702_848, 36e12, 151_936)
    assert ask_teacher("mistral-7b-v0.1", tokens=8e12).tokens == 8e12


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("8B", {}, "give the tokens it was trained on"),
        ("gpt-oss-20b", {}, "not published"),
        ("Qwen3-9B", {"tokens": 1e12}, "did you mean Qwen/Qwen3-8B-Base"),
        ("my/own-model", {"tokens": 1e12}, "none of the [0-9]+ open models"),
        ("8,5B", {"tokens": 1e12}, "comma is ambiguous"),
        ("7", {"tokens": 1e12}, "no size of a model"),
        ("8B", {"tokens": 1e12, "active_params": 9e9}, "at most params"),
    ],
)
def test_what_is_no_teacher_is_refused_with_what_to_give(name, given, says):
    with pytest.raises(InputError, match=says):
        ask_teacher(name, **given)


def test_a_catalogue_takes_the_same_names():
    first, second = parse_catalogue("name,loss,tokens\nQwen/Qwen3-8B-Base,,\nLlama-3.1-8B,2.2,14T\n")
    assert (first.params, first.tokens, first.vocab) == (6_946_075_648, 36e12, 151_936)
    assert (second.params, second.loss, second.tokens) == (6_979_588_096, 2.2, 14e12)
    with pytest.raises(InputError, match="no column params"):
        parse_catalogue("name,tokens\nmine,1T\n")
    with pytest.raises(InputError, match="may be left out for the models that `distlaw teachers` lists"):
        parse_catalogue("name,params,tokens\nmine,,1T\n")
