"""Methods as specs: by name and field by field, what is refused, their steps and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step, with_shared_prefixes
from sweeps.dag.identity import method_identity
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method, named_methods
from sweeps.spec.method.method_options import Init, Source
from sweeps.spec.spec import parse_sweep


def made(given: Any) -> Method:
    return Method.model_validate(given)


def sweep(small_spec: dict[str, Any], *methods: Any, **more: Any) -> Dag:
    return dag_of(parse_sweep(small_spec | {"supervised": [], "methods": list(methods)} | more))


@pytest.mark.parametrize("name", named_methods())
def test_named_methods_are_methods(name: str, small_spec: dict[str, Any], own_cache: Path) -> None:
    if name == "delta-kd":
        small_spec["base"] = {"source": small_spec["corpus"]["source"], "tuning_tokens": "32k"}
    method = made(name)
    assert method.name == name
    assert made({"use": name}) == method
    spelt = made(method.model_dump(exclude={"use"}))
    assert method_identity(spelt) == method_identity(method)
    assert spelt.name != name
    ids = [{step.id for step in sweep(small_spec, how).steps} for how in (name, spelt.model_dump())]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"use": "gkd", "beta": 0.1}, "gkd beta=0.1"),
        ({"use": "gkd", "source": {"fraction": 1}, "init": None}, "gkd fraction=1 no init"),
        ({"use": "minillm", "credit": {"updates": 1}}, "minillm updates=1"),
        ({"use": "f-distill-js", "midpoint": "exact"}, "f-distill-js exact"),
        ({"use": "seqkd", "source": {"temperature": 0.5}}, "seqkd temperature=0.5"),
        (
            {"divergence": "reverse-kl", "source": {"by": "student"}, "credit": {"normalise": False}},
            "reverse-kl student long-horizon no normalise",
        ),
        ({"source": {"by": "student", "replay": {}}, "init": {}}, "forward-kl student replay init"),
        ({"divergence": "skew-kl", "temperature": 2}, "skew-kl tau=2"),
    ],
)
def test_names_say_what_differs(given: dict[str, Any], name: str) -> None:
    assert made(given).name == name


def test_students_may_have_methods_of_their_own(small_spec: dict[str, Any]) -> None:
    students = [
        {"params": ["3k"], "tokens": ["32k"]},
        {"params": ["3k"], "tokens": ["40k"], "methods": ["gkd"]},
    ]
    runs = [
        step for step in sweep(small_spec, "dkd", "taid", students=students).steps if step.kind == "distil"
    ]
    found = {(step.method.name, round(step.tokens, -3)) for step in runs if step.method}
    assert found == {("dkd", 32000), ("taid", 32000), ("gkd", 40000)}
    more = {"params": ["3k"], "tokens": ["40k"], "methods": ["dkd", {"logits": "top-k", "top": 300}]}
    with pytest.raises(InputError, match=r"students\[2\].methods\[1\].top: 300 of 300 tokens are all"):
        sweep(small_spec, "dkd", students=[*students, more])


def test_students_may_have_some_of_the_teachers(small_spec: dict[str, Any]) -> None:
    teachers = [{"params": ["3k", "7k"], "tokens": ["32k"]}, {"params": ["3k"], "tokens": ["40k"]}]
    students = [{"params": ["3k"], "tokens": ["32k"]}, {"params": ["3k"], "tokens": ["40k"], "teachers": [1]}]
    runs = [
        step
        for step in sweep(small_spec, {}, teachers=teachers, students=students).steps
        if step.kind == "distil"
    ]
    found = [(round(run.tokens, -3), round(run.teacher.tokens, -3)) for run in runs if run.teacher]
    assert sorted(found) == [(32000, 32000), (32000, 32000), (32000, 40000), (40000, 40000)]
    students[1]["params"] = ["7k"]  # as large as one of the others' teachers
    with pytest.raises(InputError, match=r"students\[1\].params: 7000 is larger than every teacher"):
        sweep(small_spec, {}, teachers=teachers, students=students)
    students[1]["teachers"] = [2]
    with pytest.raises(InputError, match=r"students\[1\].teachers: no teacher has number 2; the last is 1"):
        sweep(small_spec, {}, teachers=teachers, students=students)
    for wrong, reason in (([], "at least 1"), ([-1], "greater than or equal to 0")):
        students[1]["teachers"] = wrong
        with pytest.raises(InputError, match=rf"students\[1\].teachers.*{reason}"):
            sweep(small_spec, {}, teachers=teachers, students=students)


STUDENT = {"source": {"by": "student"}}


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("minilm", "no method is called 'minilm'; known: d"),
        (None, "a method is a name, such as taid, or a mapping of fields, found None"),
        (["taid"], "a method is a name, such as taid, or a mapping of fields"),
        ({"use": "gkd", "beta": 0}, "beta: at 0 nothing is mixed; set divergence: forward-kl"),
        ({"use": "gkd", "beta": 1.0}, "beta: at 1.0 nothing is mixed; set divergence: reverse-kl"),
        ({**STUDENT, "logits": "cached"}, "what it says about text of the student cannot: it is not written"),
        ({**STUDENT, "logits": "top-k"}, "what a teacher says about the data can be top-k"),
        ({"use": "seqkd", "logits": "cached"}, "text of the teacher cannot"),
        ({**STUDENT, "cross_entropy": 0.5}, "cross_entropy: tokens that the student drew itself"),
        ({**STUDENT, "taid": {}}, "taid: it sets its pace by how the loss falls on the data"),
        ({"pretraining": 1}, "pretraining: it goes beside text of the student"),
        ({"source": {"prompt_tokens": 4}}, "source.prompt_tokens: text of the data has no prompts"),
        ({"source": {"by": "teacher", "fraction": 0.5}}, "source.fraction: it is about what the student"),
        (
            {"source": {"by": "both"}},
            "both have their halves in jensen-shannon, total-variation, not forward",
        ),
        ({"source": {"by": "student", "fraction": 0.5, "replay": {}}}, "with replay it is source.replay"),
        ({"use": "f-distill-tvd", "midpoint": "exact"}, "midpoint: total-variation has none"),
        ({"divergence": "jensen-shannon", "midpoint": "exact"}, "midpoint: exact weighs both models"),
        (
            {"use": "f-distill-js", "midpoint": "exact", "temperature": 2},
            "midpoint: exact is about sequences",
        ),
        ({"use": "minillm", "divergence": "forward-kl"}, "credit: its rewards add up to reverse-kl"),
        (
            {"use": "minillm", "source": {"fraction": 0.5}},
            "credit: what came after a token is credited to how",
        ),
        ({"use": "minillm", "source": {"temperature": 0.5}}, "credit: its rewards are at temperature 1"),
        ({"divergence": "reverse-kl", "credit": {}}, "set source.by: student, without fraction or replay"),
        ({"use": "minillm", "credit": {"rewards": "expected", "include_current": True}}, "credits none"),
        (
            {"use": "gkd", "source": {"fractoin": 1}},
            r"source.fractoin: no such field; did you mean 'fraction'",
        ),
        ({"use": "gkd", "init": {"share": 1.0}}, "init.share: input should be less than 1, found 1.0"),
        (
            {"use": "gkd", "source": {"prompt_tokens": 32}},
            "prompts of 32 tokens leave nothing of a context of 32",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(
    small_spec: dict[str, Any], method: Any, reason: str
) -> None:
    with pytest.raises(InputError) as found:
        parse_sweep(small_spec | {"methods": [{}, method]})
    assert "methods[1]" in str(found.value)
    assert reason in str(found.value)


def test_halves_of_one_block_are_refused(small_spec: dict[str, Any]) -> None:
    rules = {"training": {"batch_tokens": 32}}
    with pytest.raises(InputError, match=r"methods\[0\].source.by: .* but a batch is 1 block; raise"):
        parse_sweep(small_spec | rules | {"methods": ["f-distill-js"]})
    parse_sweep(small_spec | rules | {"methods": ["gkd"]})


def test_a_mixture_without_credit_is_allowed() -> None:
    made({"source": {"by": "student", "teacher_share": 0.2}})


def test_preludes_and_texts_are_shared_by_all_that_need_them(small_spec: dict[str, Any]) -> None:
    dag = sweep(small_spec, "gkd", "minillm", "f-distill-js", "f-distill-tvd", "f-distill-rkl", "seqkd")
    place = {step.id: number for number, step in enumerate(dag.steps)}
    kinds = [step.kind for step in dag.steps]
    lengths, teachers = 2, 2
    assert kinds.count("distil") == 6 * lengths * teachers
    assert kinds.count("generate") == teachers  # one as long as the longest
    assert kinds.count("prelude") == lengths + lengths * teachers  # on the data, and from each teacher
    for step in dag.steps:
        assert all(place[need.id] < place[step.id] for need in step.needs)
        again = Step.from_json(json.loads(json.dumps(step.as_json())))
        assert (again, again.id) == (step, step.id)
        if step.kind == "distil":
            assert step.tokens == pytest.approx(32e3, rel=0.01) or step.tokens == pytest.approx(
                40e3, rel=0.01
            )
            assert (step.init is None) == (step.method is not None and step.method.name == "seqkd")
        if step.kind == "generate":
            assert step.tokens == pytest.approx(40e3, rel=0.01)
            assert "generate 40K tokens of 7.03K" in step.label


def test_a_prelude_is_a_part_of_the_identity_and_the_texts_are_not(small_spec: dict[str, Any]) -> None:
    gkd, other, seqkd = (
        [step for step in sweep(small_spec, how).steps if step.kind == "distil"]
        for how in ("gkd", {"use": "gkd", "init": {"share": 0.3}}, "seqkd")
    )
    assert not {step.id for step in gkd} & {step.id for step in other}
    assert gkd[0].first + gkd[0].steps == other[0].first + other[0].steps == 500
    assert gkd[0].first == 125
    assert replace(seqkd[0], texts=None).id == seqkd[0].id
    assert replace(gkd[0], init=None).id != gkd[0].id


def test_a_prelude_too_short_to_warm_up_is_refused(small_spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"gkd share=0.05: .* 25 long, and warm-up takes 25"):
        sweep(small_spec, {"use": "gkd", "init": {"share": 0.05}})


def test_prefixes_are_shared_by_methods_that_do_not_depend_on_total_steps(small_spec: dict[str, Any]) -> None:
    rules = small_spec["training"] | {"schedule": "wsd"}
    for how, prefixes in (({"use": "gkd", "init": None}, 2), ({"use": "distillm", "init": None}, 0)):
        dag = sweep(small_spec, how, training=rules)
        assert sum(step.kind == "trunk" for step in dag.steps if step.teacher) == prefixes
    runs = [step for step in sweep(small_spec, "gkd").steps if step.kind == "distil"]
    assert not any(
        step.kind == "trunk" for step in with_shared_prefixes(runs)
    )  # each has a prelude of its own length


def test_students_that_learn_from_the_same_text_train_side_by_side(small_spec: dict[str, Any]) -> None:
    grids = [{"params": ["3k", "7k"], "tokens": ["32k"]}]
    teachers = [{"params": ["7k"], "tokens": ["32k"]}]
    kl = {"use": "f-distill-kl", "init": None}
    for how, sizes in ((kl, [2]), ("seqkd", [1, 1]), ({"use": "gkd", "init": None}, [1, 1]), ("gkd", [1, 1])):
        dag = sweep(small_spec, how, students=grids, teachers=teachers)
        runs = [step for step in dag.steps if step.kind == "distil"]
        assert [len(cohort) for cohort in group_into_cohorts(runs, 1, lambda step: step.flops)] == sizes
    mixed = [s for s in sweep(small_spec, kl, {}, teachers=teachers).steps if s.kind == "distil"]
    assert [len(cohort) for cohort in group_into_cohorts(mixed, 1, lambda step: step.flops)] == [2, 2]


# methods on the data aside; FLOPs a token of a batch, of student and teacher, in forward passes: a step of training is three
PASSES = {
    "seqkd": (3, 1),
    "gkd": (3.5, 1),
    "distillm": (4, 1),
    "f-distill-kl": (3, 2),
    "f-distill-rkl": (4, 1),
    "f-distill-js": (3.5, 1.5),
    "f-distill-tvd": (3.5, 1.5),
    "minillm": (6 + 1 / 4, 2 / 4),
}


@pytest.mark.parametrize("name", sorted({*named_methods()} - {"delta-kd", "dnkd"}))  # in tests of their own
def test_every_pass_is_paid_for(name: str, small_spec: dict[str, Any]) -> None:
    teachers = [{"params": ["7k"], "tokens": ["32k"]}]
    students = [{"params": ["3k"], "tokens": ["32k"]}]
    bare, whole = (
        sweep(small_spec, how, teachers=teachers, students=students).steps[-1]
        for how in ({"use": name, "init": None}, name)
    )
    assert bare.teacher is not None
    own, of_teacher = bare.shape.forward_flops * bare.tokens, bare.teacher.shape.forward_flops * bare.tokens
    passes = PASSES.get(name, (3, 1))
    assert bare.student_flops == pytest.approx(passes[0] * own)
    assert bare.teacher_flops == pytest.approx(passes[1] * of_teacher)
    assert bare.method is not None
    before = {"teacher": 1.0, "both": 0.5}.get(bare.method.source.by, 0.0)  # by a step of its own
    assert bare.flops_to_spend == pytest.approx(bare.flops - before * of_teacher)
    if bare.texts:
        assert bare.texts.flops_to_spend == pytest.approx(of_teacher)
    if (init := whole.init) is None:
        return
    assert init.tokens == pytest.approx(whole.tokens / 4, rel=0.01)
    assert whole.flops == pytest.approx(init.flops + 0.75 * bare.flops)
    taught = 1 if whole.method == Method(use=name, init=Init(by="teacher")) else 0
    expected = init.tokens * (3 * bare.shape.forward_flops + taught * bare.teacher.shape.forward_flops)
    assert init.flops == init.flops_to_spend == pytest.approx(expected)
    assert whole.flops_to_spend == pytest.approx(0.75 * bare.flops_to_spend)


def test_a_prompt_is_a_quarter_of_the_context_unless_it_is_said() -> None:
    assert Source(by="student").prompt(128) == 32
    assert Source(by="student", prompt_tokens=5).prompt(128) == 5
