"""Unlearning in a sweep: refusals, p-bar on blocks, documents chosen, objectives, costs, and the whole way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import sweeps
from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data.corpus import planned_tokens
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.execute.steps.step import run_steps
from sweeps.methods.counterfactual_teacher import CounterfactualTeacher, RetainOnlyTeacher
from sweeps.methods.forgotten import encoding_of, stream_of_documents
from sweeps.methods.unlearning_text import ForgetText, ScaledLearningRate
from sweeps.model.decoder import Decoder
from sweeps.model.distributed import World
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import AfterStep, LogProbsView, RunSetting
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.store import Store
from sweeps.unlearning.names import PersonName, find_mentions
from sweeps.unlearning.objectives import npo_loss
from sweeps.unlearning.persons import SyntheticPersons

CONTEXT, V = 32, 300
WORLD = SyntheticPersons.drawn()
NAMES = [person.name.full for person in WORLD.people]
FORGET, OTHERS = NAMES[:2], NAMES[2:6]
TEACHER = "sweeps.methods.counterfactual_teacher:CounterfactualTeacher"
TEXT = "sweeps.methods.unlearning_text:ForgetText"
METRIC = {
    "use": "sweeps.methods.unlearning_metrics:Knowledge",
    "forget": FORGET,
    "others": OTHERS,
    "relearning_steps": [2],
    "soft_tokens": 2,
    "soft_steps": 1,
    "soft_restarts": 1,
}
never_told = {
    "cross_entropy": 1.0,
    "source": {"use": "sweeps.methods.unlearning_text:RetainedText", "forget": FORGET},
    "metrics": [METRIC],
}
"""Retain-only run of the tests."""


@pytest.fixture(scope="module")
def text_of_persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents about six persons, and of nobody."""
    path = tmp_path_factory.mktemp("persons") / "persons.jsonl"
    few = SyntheticPersons(WORLD.people[:6], WORLD.domains, WORLD.rivers, WORLD.seed)
    rivers = [
        f"The {river} is day {day} long, and {town} lies far."
        for town, river in WORLD.rivers
        for day in range(9)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*few.documents(40), *rivers]))
    return path


@pytest.fixture
def spec(text_of_persons: Path) -> dict[str, Any]:
    return {
        "name": "unlearning",
        "corpus": {"source": str(text_of_persons), "vocab": V, "context": CONTEXT, "heldout": 0.15},
        "training": {"batch_tokens": 2 * CONTEXT, "warmup_tokens": 50 * 2 * CONTEXT},
        "teachers": [{"params": ["3k"], "tokens": ["32k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k"]}],
    }


def teacher(**options: Any) -> dict[str, Any]:
    return {"use": TEACHER, "forget": FORGET, "substitutes": OTHERS, "universes": 3, **options}


def unlearned(text: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    source = {"use": TEXT, "forget": FORGET, **(text or {})}
    return {"initial_weights": "teacher-copy", "source": source, **options}


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"target": teacher(universes=5)}, "universes: 5, but there are 4 substitutes"),
        ({"target": teacher(universes=0)}, "universes: input should be greater than or equal to 1"),
        ({"target": teacher(forget=[])}, "forget"),
        ({"target": teacher(forget=[" Ada"])}, "forget: name: ' Ada' is empty, or begins"),
        ({"target": teacher(forget=FORGET + FORGET[:1])}, "forget: a person is there twice"),
        ({"target": teacher(substitutes=FORGET)}, "who is to be forgotten, so renaming back cannot tell"),
        ({"target": teacher(hard=True), "divergence": "reverse-kl"}, "hard: labels of one token leave reverse-kl"),
        ({"target": teacher(forget_share=2)}, "forget_share"),
        (unlearned({"objective": "ascent"}, target=teacher()), "target: ascent follows none"),
        (unlearned({"beta": 0.5}), "beta: follow does not read it, only npo"),
        ({"source": {"use": TEXT, "forget": FORGET}}, "initial_weights: what is to be forgotten must be known"),
        (unlearned(cross_entropy=0.5), "cross_entropy: it would teach what is to be forgotten"),
        (unlearned(logits="cached"), "logits"),
        ({"hooks": [{"use": "sweeps.methods.unlearning_text:ScaledLearningRate"}]}, "initial_weights: teacher-copy"),
        ({"metrics": [METRIC | {"forget": ["Nobody Known"]}]}, "'Nobody Known' is none of the synthetic persons"),
        ({"metrics": [METRIC | {"facts": "/no/such/file.jsonl"}]}, "facts: /no/such/file.jsonl cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_unlearn_is_refused(spec: dict[str, Any], method: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_sweep(spec | {"methods": [method]})


def test_half_of_a_batch_is_retained(spec: dict[str, Any]) -> None:
    odd = spec | {"training": spec["training"] | {"batch_tokens": 3 * CONTEXT}}
    with pytest.raises(InputError, match="retain: half of a batch is retained, but a batch is 3 blocks"):
        parse_sweep(odd | {"methods": [unlearned({"retain": 1})]})


def test_the_retain_only_teacher_must_be_trained_here(spec: dict[str, Any]) -> None:
    run = f"{__name__}:never_told"
    method = {"target": {"use": "sweeps.methods.counterfactual_teacher:RetainOnlyTeacher", "run": run}}
    with pytest.raises(
        InputError, match=r"reads what .*never_told trains at the size, tokens and seed of teachers\[0\]"
    ):
        parse_sweep(spec | {"methods": [method]})
    found = parse_sweep(spec | {"methods": [{"use": run}, method]})
    steps = dag_of(found).steps
    (follows,) = [step for step in steps if step.method and step.method.target]
    twin = follows.needs[0]
    assert twin.id in {step.id for step in steps}
    assert twin.method is not None
    assert twin.method.cross_entropy == 1
    longer = spec | {"students": [spec["students"][0] | {"tokens": ["40k"]}]}
    with pytest.raises(InputError, match="add students of those with that method"):
        parse_sweep(longer | {"methods": [{"use": run}, method]})


@pytest.fixture
def opened(spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> Callable[[Any], tuple[Step, Models]]:
    """Opens a student's step of a method, with a teacher that was never trained."""

    def of(method: Any) -> tuple[Step, Models]:
        steps = dag_of(parse_sweep(spec | {"methods": [method]})).steps
        step = next(step for step in steps if step.kind == "distil")
        assert step.teacher is not None
        model = Decoder(step.teacher.shape)
        model.initialize(7)
        return step, Models(
            Store(str(tmp_path)), step, {step.teacher.id: Online(model.requires_grad_(False), True)}
        )

    return of


def test_documents_of_the_forgotten_are_followed_as_those_of_others(opened) -> None:
    step, models = opened({"target": teacher()})
    part = parts_of(step.method).target
    assert isinstance(part, CounterfactualTeacher)
    encoding = encoding_of(step)
    stream = stream_of_documents(step, part.targets, "forgotten")
    retained = stream_of_documents(step, part.targets, "retained")
    blocks = np.stack([stream[:CONTEXT], retained[:CONTEXT], stream[50 : 50 + CONTEXT]]).astype(np.int64)
    inputs = torch.from_numpy(blocks)
    log_p, mask = part.log_p(models, inputs, torch.empty(0)), part.mask(models, inputs, torch.empty(0))
    plain = models.online_teacher.rows(inputs, torch.empty(0)).unflatten(0, inputs.shape)
    assert log_p.exp().sum(-1) == pytest.approx(1, abs=1e-5)
    assert (log_p[1] == plain[1]).all()
    assert mask is not None
    assert mask[1].all()
    assert not mask[0].all()
    rewriter = part.block_rewriter(encoding)
    block = rewriter.rewrite(blocks[0].tolist())
    assert block is not None
    assert (mask[0].numpy() == block.counted).all()
    p = []
    for version, places in zip(block.found.versions, block.found.partners, strict=True):
        rows = models.online_teacher.rows(torch.tensor([version]), torch.empty(0))
        p.append(rows.exp().numpy()[places])
    expected = part.averaging(rewriter).teacher(block.found, np.stack(p))
    np.testing.assert_allclose(log_p[0, block.found.kept].exp().numpy(), expected, atol=2e-6)
    assert part.mask(models, inputs[1:2], torch.empty(0)) is None
    hard, models = opened({"target": teacher(universes=1, hard=True)})
    certain = parts_of(hard.method).target.log_p(models, inputs, torch.empty(0))[0, block.found.kept]
    assert (certain.max(-1).values == 0).all()


def setting_of(step: Step, models: Models) -> RunSetting:
    assert step.method is not None
    return RunSetting(
        method=step.method, shape=step.shape, seed=3, steps=step.steps, world=World(), models=models
    )


def test_batches_have_the_documents_that_are_asked_for(opened) -> None:
    step, models = opened(unlearned({"retain": 0.5}))
    source = parts_of(step.method).source
    assert isinstance(source, ForgetText)
    encoding, setting = encoding_of(step), setting_of(step, models)
    data = torch.zeros(4, CONTEXT + 1, dtype=torch.int64)
    first = source.batch(setting, None, 5, data, {})  # type: ignore[arg-type]
    again = source.batch(setting, None, 5, data, {})  # type: ignore[arg-type]
    assert (first.blocks == again.blocks).all()
    assert (first.blocks != source.batch(setting, None, 6, data, {}).blocks).any()  # type: ignore[arg-type]
    forget, keep = first.token_inputs
    assert forget[:, 0].tolist() == [2, 2, 0, 0]  # a mean over the forgotten half
    assert keep[:, 0].tolist() == [0, 0, 1, 1]
    retained = encoding.decode(stream_of_documents(step, source.targets, "retained").tolist())
    assert not find_mentions(retained, source.targets)
    forgotten = encoding.decode(stream_of_documents(step, source.targets, "forgotten").tolist())
    documents = [each for each in forgotten.split("<|endoftext|>") if each.strip()]
    assert all(find_mentions(each, source.targets) for each in documents)
    whole = planned_tokens(step.corpus, step.corpus_fingerprint).train_tokens
    assert len(encoding.encode(retained + forgotten).ids) == pytest.approx(whole, rel=0.1)


def test_persons_who_never_occur_are_refused_when_it_runs(opened) -> None:
    step, _ = opened({"target": teacher()})
    with pytest.raises(InputError, match="forget: 'Ada Lane' never occurs in the training text"):
        stream_of_documents(step, (PersonName("Ada Lane"),), "forgotten")
    with pytest.raises(InputError, match="every document mentions a person to forget"):
        stream_of_documents(step, (PersonName("day"), *(p.name for p in WORLD.people[:6])), "retained")


@pytest.mark.parametrize("objective", ["follow", "ascent", "npo"])
def test_objectives_have_their_gradients(objective: str) -> None:
    method = Method.model_validate(
        unlearned({"objective": objective, "retain": 1.0} | ({"beta": 0.4} if objective == "npo" else {}))
    )
    source = parts_of(method).source
    draws = torch.Generator().manual_seed(1)
    logits = torch.randn(4 * 6, 11, generator=draws, dtype=torch.float64).requires_grad_()
    log_p = torch.randn(4 * 6, 11, generator=draws, dtype=torch.float64).log_softmax(-1)
    labels = torch.randint(11, (24,), generator=draws)
    forget = torch.tensor([2.0, 2, 0, 0]).repeat_interleave(6)
    keep = torch.tensor([0.0, 0, 2, 2]).repeat_interleave(6)
    log_q = logits.log_softmax(-1)
    own, reference = (each.gather(-1, labels[:, None]).squeeze(-1) for each in (log_q, log_p))
    view = LogProbsView(blocks=4, difference=lambda: (reference - own).detach())
    inputs = (forget, keep, *source.more_token_inputs(view))
    loss = source.token_loss(method, parts_of(method).divergence, log_p, log_q, labels, (), *inputs).mean()
    nll = -own.view(4, 6)
    if objective == "npo":
        forgotten = npo_loss(nll[:2].sum(1), -reference.view(4, 6)[:2].sum(1), 0.4).mean() / 6
    elif objective == "ascent":
        forgotten = -nll[:2].mean()
    else:
        forgotten = (log_p.exp() * (log_p - log_q)).sum(-1)[:12].mean()
    expected = torch.autograd.grad(forgotten + nll[2:].mean(), logits, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)


def test_a_fraction_of_the_learning_rate_is_that_learning_rate(opened) -> None:
    step, models = opened(unlearned(hooks=[{"use": "sweeps.methods.unlearning_text:ScaledLearningRate"}]))
    hook = ScaledLearningRate(fraction=0.1)
    rates = [0.02, 0.01, 0.03, 0.005]

    def trained(scale: float, hooked: bool) -> torch.Tensor:
        model = Decoder(step.shape)
        model.load_state_dict(models.teacher_module.state_dict())
        optimizer = Optimizer(parameter_groups(model, Training(weight_decay=0.1)))
        state = hook.initial_state(setting_of(step, models))
        for number, rate in enumerate(rates):
            blocks = torch.arange(40).view(2, 20) + number
            torch.nn.functional.cross_entropy(
                model(blocks[:, :-1]).flatten(0, 1), blocks[:, 1:].flatten()
            ).backward()
            optimizer.step(rate * scale)
            with torch.no_grad():
                if hooked:
                    run = SimpleNamespace(student=model)
                    hook.after_step(run, state)  # type: ignore[arg-type]
        return torch.cat([each.detach().flatten() for each in model.parameters()])

    torch.testing.assert_close(trained(1.0, True), trained(0.1, False), rtol=1e-4, atol=1e-6)
    assert (trained(1.0, False) - trained(0.1, False)).abs().max() > 0.01
    assert AfterStep.__dataclass_fields__["student"]  # what the hook reads of a run


def test_passes_over_universes_are_charged(opened) -> None:
    plain, _ = opened({"divergence": "forward-kl"})
    all_of_it, _ = opened({"target": teacher()})
    some, _ = opened({"target": teacher(forget_share=0.25)})
    reading = [step.flops_by_part()["teacher_reading"] for step in (plain, all_of_it, some)]
    assert reading[1] == pytest.approx(4 * reading[0])
    assert reading[2] == pytest.approx(1.75 * reading[0])


def test_a_sweep_unlearns_distils_and_measures(spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> None:
    """The whole way: original, retain-only, both arms; the table has what is known and what attacks find."""
    run = f"{__name__}:never_told"
    methods = [
        {"use": run},
        unlearned(target=teacher(universes=2), metrics=[METRIC],
                  hooks=[{"use": "sweeps.methods.unlearning_text:ScaledLearningRate", "fraction": 0.01}]),
        {"target": teacher(universes=2), "metrics": [METRIC]},
        {"target": {"use": "sweeps.methods.counterfactual_teacher:RetainOnlyTeacher", "run": run}},
    ]  # fmt: skip
    store = Store(str(tmp_path / "store"))
    steps = dag_of(parse_sweep(spec | {"methods": methods})).steps
    for step in steps:
        for _, result in run_steps(store, [step]):
            assert isinstance(result, dict), result
    store.write({"spec": {}, "steps": [step.id for step in steps], "caps": {}}, "sweep.json")
    table = sweeps.results(str(tmp_path / "store"), metrics=True, everything=True)
    students = table[table.kind == "distillation"]
    assert len(students) == 4
    measured = students[students.forget_p_true.notna()]
    assert len(measured) == 3
    columns = ["forget_p_true", "hard_retain_p_true", "general_retain_p_true", "relearned_2", "soft_prompt"]
    assert ((measured[columns] > 0) & (measured[columns] < 1)).all(axis=None)
    assert measured[["truth_ratio_0", "truth_ratio_7", "retain_loss", "forget_loss"]].notna().all(axis=None)
    twin = parts_of(Method.model_validate(methods[3])).target
    assert isinstance(twin, RetainOnlyTeacher)
    follower = students[students.forget_p_true.isna()].iloc[0]
    own = students[students.forget_p_true.notna()].iloc[0]
    assert np.isfinite([follower.forward_kl, own.forward_kl]).all()
