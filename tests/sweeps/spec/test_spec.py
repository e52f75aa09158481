"""Specs: accepted as people write them, refused with the field, the value and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.dag.identity import training_identity
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Taid
from sweeps.spec.resources import Devices
from sweeps.spec.spec import Training, load_sweep, parse_sweep, presets


def test_quantities_are_read_as_people_write_them(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["7k", 7e3, "0.007M"], "tokens": ["1.5M"]}]
    grid = parse_sweep(small_spec).supervised[0]
    assert grid.params == [7e3] * 3
    assert grid.tokens == [1.5e6]


def test_every_preset_is_valid() -> None:
    assert "quickstart" in presets()
    for name in presets():
        assert load_sweep(name).name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpos": {}}, "corpos: no such field; did you mean 'corpus'?"),
        ({"corpus": {"vocabulary": 512}}, "corpus.vocabulary: no such field; did you mean 'vocab'?"),
        ({"supervised": [{"params": ["7k"], "token": ["1M"]}]}, "supervised[0].token: no such field"),
        (
            {"supervised": [{"params": ["-7k"], "tokens": ["1M"]}]},
            "supervised[0].params[0]: must be positive",
        ),
        ({"supervised": [{"params": ["7q"], "tokens": ["1M"]}]}, "cannot read '7q' as a quantity"),
        ({"supervised": [{"params": ["nan"], "tokens": ["1M"]}]}, "supervised[0].params[0]"),
        ({"supervised": [{"params": [True], "tokens": ["1M"]}]}, "supervised[0].params[0]"),
        ({"supervised": [{"params": [], "tokens": ["1M"]}]}, "supervised[0].params: list should have"),
        ({"supervised": [{"params": ["7k"]}]}, "exactly one of tokens, tokens_per_param, flops; found none"),
        (
            {"supervised": [{"params": ["7k"], "tokens": ["1M"], "flops": ["1e12"]}]},
            "exactly one of tokens, tokens_per_param, flops; found tokens and flops",
        ),
        ({"teachers": []}, "students need teachers"),
        (
            {"training": {"learning_rate": float("inf")}},
            "training.learning_rate: input should be a finite number",
        ),
        ({"supervised": [{"params": [10**400], "tokens": ["1M"]}]}, "supervised[0].params[0]: too large"),
        ({"supervised": [{"params": ["7k"], "tokens": ["1M"], "seeds": [2**63]}]}, "supervised[0].seeds[0]"),
        ({"name": ".."}, "name: string should match"),
        (
            {"training": {"schedule": "wsd", "decay_fraction": 1.0}},
            "training.decay_fraction: input should be less than or equal",
        ),
        ({"students": []}, "teachers without students"),
        ({"training": {"batch_tokens": 100}}, "must be a multiple of corpus.context (32)"),
        (
            {"corpus": {"vocab": 100}},
            "corpus: vocab: 100 is too small: bytes and the end-of-text token need 257",
        ),
        ({"corpus": {"heldout": 1.5}}, "corpus.heldout: input should be less than 1, found 1.5"),
        ({"methods": [{"divergence": "forward"}]}, "methods[0].divergence: input should be 'forward-kl'"),
        (
            {"methods": [{"logits": "top-k", "temperature": 2}]},
            "methods[0]: logits: top-k keeps the tail's mass at temperature 1, which says nothing of 2; use",
        ),
        (
            {"methods": [{"logits": "top-k", "taid": {}}]},
            "methods[0]: taid: it mixes teacher and student token by token, also in the tail; use logits: ca",
        ),
        (
            {"methods": [{"logits": "top-k", "divergence": "decoupled-kl"}]},
            "divergence: decoupled-kl singles the label out, which may be in the tail",
        ),
        (
            {"methods": [{"taid": {}, "divergence": "reverse-kl"}]},
            "taid: it sets its pace by forward-kl, not reverse-kl",
        ),
        (
            {"methods": [{"taid": {"start": 0.5, "end": 0.4}}]},
            "methods[0].taid: start (0.5) must not be above",
        ),
        ({"methods": [{"divergence": "decoupled-kl", "gold": 0, "others": 0}]}, "nothing would be taught"),
        ({"methods": [{}, {"logits": "top-k", "top": 300}]}, "methods[1].top: 300 of 300 tokens are all of"),
        ({"methods": [{"logits": "cached", "top": 8}]}, "top: logits: cached does not read it, only top-k"),
        ({"methods": [{"skew": 0.2}]}, "methods[0]: skew: forward-kl does not read it, only skew-kl and rev"),
        (
            {"methods": [{"divergence": "jensen-shannon", "beta": 1}]},
            "methods[0].beta: at 1 nothing is mixed; set divergence: reverse-kl",
        ),
        ({"name": "a/b"}, "name: string should match"),
        ({"name": None}, "name: input should be a valid string"),
    ],
)
def test_a_wrong_spec_names_the_field(
    small_spec: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(small_spec.get(key), dict)
        small_spec[key] = small_spec[key] | value if both else value
    with pytest.raises(InputError) as error:
        parse_sweep(small_spec, "my.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("my.yaml: ")


def test_a_method_s_name_says_what_is_not_at_its_default() -> None:
    assert Method().name == "forward-kl"
    method = Method(divergence="jensen-shannon", beta=0.25, temperature=2, cross_entropy=0.1)
    assert method.name == "jensen-shannon beta=0.25 tau=2 ce=0.1"
    assert Method(taid=Taid(start=0.2)).name == "forward-kl taid start=0.2"
    assert Method(divergence="decoupled-kl", others=8).name == "decoupled-kl others=8"
    assert [Method(logits=how).name for how in ("cached", "top-k")] == [
        "forward-kl cached",
        "forward-kl top-32",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('supervised: [{params: ["13,5k"], tokens: [1M]}]', "params[0]: cannot read '13,5k'"),
        ("supervised: [{params: [13,5k], tokens: [1M]}]", "13,5k is one number, or two; write 13.5k"),
        (
            "supervised: [{params: [7k], tokens: [20:1]}]",
            "tokens[0]: cannot read '20:1' as a quantity; a ratio",
        ),
        ("supervised: [{params: [7k], tokens: [1M], seeds: [010]}]", "seeds[0]: cannot read '010'"),
        ("supervised: [{params: [0x10], tokens: [1M]}]", "params[0]: cannot read '0x10'"),
        ("supervised: [{params: [7_5], tokens: [1M]}]", "params[0]: cannot read '7_5'"),
        ("supervised: [{params: [yes], tokens: [1M]}]", "params[0]: cannot read 'yes'"),
        ("supervised: [{params: [2026-01-01], tokens: [1M]}]", "params[0]: cannot read '2026-01-01'"),
        ("supervised: [{params: [.inf], tokens: [1M]}]", "params[0]: cannot read '.inf'"),
        ("supervised: [{params: [!!int 010], tokens: [1M]}]", "'010' is not a decimal number"),
        ("training: {learning_rate: true}", "training.learning_rate: expected a number, not True"),
        ("training: {learning_rate: 0,01}", "training.learning_rate: input should be greater"),
        ("training: {learning_rate: 1_5}", "training.learning_rate: cannot read '1_5'"),
        ("corpus: {context: 4k}", "corpus.context: cannot read '4k' as a number"),
        ("corpus: {vocab: 300.5}", "corpus.vocab: "),
        ("name: 12", "name: input should be a valid string, found 12; put it in quotes"),
        ("methods: [{temperature: 1:30}]", "methods[0].temperature: cannot read '1:30'"),
        (
            "training: {compile: 10k}",
            "training.compile: must be auto, true, false or a list of sizes such as [1M, 3M], found '10k'",
        ),
        ("training: {compile: [1M, nan]}", "of sizes such as [1M, 3M]: cannot read 'nan' as a quantity"),
    ],
)
def test_yaml_is_never_another_number(tmp_path: Path, line: str, message: str) -> None:
    field, _, _ = line.partition(":")
    rest = {"name": "name: a", "supervised": "supervised: [{params: [7k], tokens: [1M]}]"}
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join([line, *(text for key, text in rest.items() if key != field)]))
    with pytest.raises(InputError) as error:
        load_sweep(path)
    assert message in str(error.value)


def test_yaml_is_read_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: 1e3\n"
        "corpus: {vocab: 1e3, context: 128, text_field: no}\n"
        "training: {batch_tokens: 1_280, learning_rate: 1e-3, weight_decay: .5, compile: yes}\n"
        "supervised: [{params: [1, 5k, 1e3], tokens_per_param: [20:1, 40], seeds: [10,11,1_000]}]\n"
        "methods: [{temperature: 2, taid: {pace: 1e1}}]\n"
    )
    sweep = load_sweep(path, ["training.max_grad_norm=1e-1", "training.decay_fraction=.3"])
    assert (sweep.name, sweep.corpus.text_field) == ("1e3", "no")
    assert (sweep.corpus.vocab, sweep.training.batch_tokens) == (1000, 1280)
    training = sweep.training
    assert (training.learning_rate, training.weight_decay, training.compile) == (1e-3, 0.5, True)
    assert (training.max_grad_norm, training.decay_fraction) == (0.1, 0.3)
    (grid,) = sweep.supervised
    assert (grid.params, grid.tokens_per_param, grid.seeds) == ([1, 5e3, 1e3], [20, 40], [10, 11, 1000])
    assert sweep.methods[0].taid == Taid(pace=10)


@pytest.mark.parametrize(
    "change", ["supervised[0].params=[13,5k]", "supervised[0].seeds=[010]", "name=[a: 1, a: 2]"]
)
def test_changes_are_read_like_specs(change: str) -> None:
    with pytest.raises(InputError, match=change[:4]):
        load_sweep("quickstart", [change])


def test_all_errors_come_at_once(small_spec: dict[str, Any]) -> None:
    small_spec |= {"nam": 1, "aspect_ratio": -1}
    with pytest.raises(InputError, match=r"2 wrong") as error:
        parse_sweep(small_spec)
    assert "nam" in str(error.value)
    assert "aspect_ratio" in str(error.value)


def test_students_larger_than_their_teachers_can_be_asked_for(small_spec: dict[str, Any]) -> None:
    small_spec |= {"students": [{"params": ["22k"], "tokens": ["32k"]}], "allow_weak_teachers": True}
    assert parse_sweep(small_spec).students[0].params == [22e3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [unclosed", "not valid YAML"),
        ("name: a\nname: b", "not valid YAML: 'name' is given twice"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("- a\n- b", "expected a mapping of fields at the top, found list"),
        ("", "expected a mapping of fields at the top, found NoneType"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_no_specs(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_sweep(path)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no such preset \(presets: .*quickstart"):
        load_sweep("quickstrat")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"lr": 0.02}, {"learning_rate": 0.02}),
        ({"peak_rate": 0.02, "clip": 2.0}, {"learning_rate": 0.02, "max_grad_norm": 2.0}),
        ({"decay": 0.3, "final_rate": 0.01}, {"decay_fraction": 0.3, "final_lr_fraction": 0.01}),
        ({"grad_clip": 2.0}, {"max_grad_norm": 2.0}),
    ],
)
def test_names_of_other_trainers_and_of_0_1_0_are_accepted(
    theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert Training(**theirs) == Training(**ours)
    changes = [f"training.{name}={value}" for name, value in theirs.items()]
    assert load_sweep("quickstart", changes).training == load_sweep("quickstart").training.model_copy(
        update=ours
    )


@pytest.mark.parametrize("name", ["utilization", "mfu"])
def test_the_share_of_the_peak_has_its_usual_names_too(name: str) -> None:
    assert Devices(**{name: 0.5}) == Devices(utilisation=0.5)
    assert load_sweep("quickstart", [f"hardware.{name}=0.5"]).hardware.utilisation == 0.5


def test_one_field_under_two_names_is_an_error() -> None:
    spec = {
        "training": {"lr": 0.01, "learning_rate": 0.02},
        "supervised": [{"params": ["3k"], "tokens": ["1M"]}],
    }
    with pytest.raises(InputError, match="lr and learning_rate are the same field; give only learning_rate"):
        parse_sweep({"name": "two", **spec})


def test_a_step_of_0_1_0_is_read() -> None:
    """A spec of 0.1.0 keeps its ids, and its rules are stored under the names of 0.1.0."""
    step = dag_of(load_sweep("quickstart")).steps[0]
    then = step.as_json() | {"training": training_identity(step.training)}
    assert "peak_rate" in then["training"]
    assert Step.from_json(then) == step
