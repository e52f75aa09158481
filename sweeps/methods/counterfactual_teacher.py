"""Targets that have forgotten persons: the counterfactual teacher (arXiv 2407.16997), a retain-only one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from scaling.errors import InputError
from sweeps.methods.forgotten import Forgotten, encoding_of
from sweeps.spec.fields import Count, Number, Seed
from sweeps.spec.method.interfaces import Target
from sweeps.unlearning.names import check_names

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.dag.step import Step
    from sweeps.distill.models import Models
    from sweeps.distill.targets import Online
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import TargetReader
    from sweeps.spec.spec import Sweep
    from sweeps.unlearning.blocks import BlockRewriter, RewrittenBlock
    from sweeps.unlearning.counterfactual import Averaging
    from sweeps.unlearning.encoding import TextEncoding
    from sweeps.unlearning.renaming import Floats

MEMORY_BYTES = 2**28
"""Most that is remembered of means over universes, in a process."""


class CounterfactualTeacher(Forgotten, Target):
    """The teacher, which on documents of the forgotten speaks as if of others: p-bar over substitutes.

    Elsewhere it is the teacher's own distribution. With ``universes: 1``, ``hard: true`` and
    ``name_penalty: 5`` it is Who's Harry Potter.
    """

    version: ClassVar[str | None] = "1"
    substitutes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Full names of persons who take the places of the forgotten, drawn for each of them."""
    universes: Count = Field(20, ge=1)
    """Substitutes of each person, N: passes of the teacher over their documents."""
    substitute_seed: Seed = 0
    """Seed of the order in which each person's substitutes are drawn."""
    hard: bool = False
    """Hard labels: the likeliest token of each universe."""
    name_penalty: Number = Field(0.0, ge=0)
    """Logits subtracted from names of substitutes once one was mentioned."""
    rename_back: bool = True
    """Rename what the teacher expects of names, and follow nothing within a name."""
    rename_first: bool = False
    """Rename before the first mention in a document too."""
    keep_after_name: bool = False
    """Follow the place of a name's last token too, for templates where the fact comes next."""
    forget_share: Number = Field(1.0, ge=0, le=1)
    """Share of tokens in blocks with documents of the forgotten, by which the N passes are charged."""

    def objections(self, method: Method) -> Iterator[str]:
        yield from self.name_objections()
        try:
            pool = tuple(self.named(name) for name in self.substitutes)
            check_names(self.targets, pool)
        except InputError as error:
            yield str(error)
        if self.universes > len(self.substitutes):
            yield (
                f"universes: {self.universes}, but there are {len(self.substitutes)} substitutes; name more, "
                "or ask for fewer"
            )
        if self.hard and method.divergence != "forward-kl":
            yield (
                f"hard: labels of one token leave {method.divergence_label} infinite; set divergence: "
                "forward-kl"
            )

    def forward_flops(self, step: Step) -> tuple[float, ...]:
        assert step.teacher is not None
        own = step.teacher.shape.forward_flops
        return own, own * self.universes * self.forget_share

    def mask(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor | None:
        import torch

        rewriter = self.block_rewriter(encoding_of(models.step))
        found = [rewriter.rewrite(row) for row in inputs.tolist()]
        if not any(found):
            return None
        counted = torch.ones(inputs.shape, dtype=torch.bool)
        for row, block in enumerate(found):
            if block is not None:
                counted[row] = torch.from_numpy(block.counted)
        return counted.to(inputs.device)

    def open(self, models: Models) -> TargetReader:
        from sweeps.distill.targets import Dense

        return Dense(self, models)

    def log_p(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor:
        import torch

        teacher = models.online_teacher
        log_p = teacher.log_probabilities(teacher.rows(inputs, numbers), 1.0).unflatten(0, inputs.shape)
        rewriter = self.block_rewriter(encoding_of(models.step))
        blocks = map(rewriter.rewrite, inputs.tolist())
        found = {row: block for row, block in enumerate(blocks) if block}
        if not found:
            return log_p
        log_p = log_p.clone()
        averaging, means = self.averaging(rewriter), _means(self, models.online_teacher)
        for row, block in found.items():
            if (key := tuple(inputs[row].tolist())) not in means:
                means[key] = averaging.teacher(block.found, _distributions(models, block))
            kept = torch.from_numpy(block.found.kept).to(log_p.device)
            log_p[row, kept] = torch.from_numpy(means[key]).to(log_p).log()
        return log_p

    def block_rewriter(self, encoding: TextEncoding) -> BlockRewriter:
        """Return the rewriting of blocks, made once in a process."""
        return _block_rewriter(self, encoding)

    def averaging(self, rewriter: BlockRewriter) -> Averaging:
        """Return what becomes of distributions in universes."""
        return _averaging(self, rewriter)


class RetainOnlyTeacher(Target):
    """A model of the teacher's size and length, trained without documents of the forgotten: the oracle.

    The spec must ask for it: a student of the teacher's size, tokens and seed by the method ``run``.
    """

    version: ClassVar[str | None] = "1"
    run: str
    """Named method of that student, ``MODULE:NAME``."""

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        from sweeps.dag.identity import method_identity
        from sweeps.spec.method.method import Method
        from sweeps.spec.spec import Grid

        wanted = method_identity(Method(use=self.run))
        asked = [
            grid
            for grid in sweep.students
            if any(method_identity(each) == wanted for each in grid.methods or sweep.methods)
        ]
        for number, teacher in enumerate(sweep.teachers):
            if not isinstance(teacher, Grid):
                yield "target: a pretrained teacher has no retain-only twin that a sweep could train"
            elif not any(_covers(grid, teacher, number) for grid in asked):
                yield (
                    f"target: RetainOnlyTeacher reads what {self.run} trains at the size, tokens and seed "
                    f"of teachers[{number}]; add students of those with that method"
                )

    def twin(self, step: Step) -> Step:
        """Return the step that trains the retain-only model."""
        from dataclasses import replace

        from sweeps.dag.kind import StepKind
        from sweeps.spec.method.method import Method

        assert step.teacher is not None
        return replace(step.teacher, kind=StepKind.DISTILL, teacher=step.teacher, method=Method(use=self.run))

    def needs(self, step: Step) -> tuple[Step, ...]:
        return (self.twin(step),) if step.teacher else ()

    def open(self, models: Models) -> TargetReader:
        from sweeps.distill.models import online

        twin = self.twin(models.step)
        if twin.id not in models.loaded:
            models.loaded[twin.id] = online(models.store, twin)
        return models.loaded[twin.id]


def _covers(students: object, teacher: object, number: int) -> bool:
    """Return True if a grid of students has a run for each of a teacher's grid."""
    from sweeps.spec.spec import Grid, Students

    assert isinstance(students, Students)
    assert isinstance(teacher, Grid)
    lengths = ("tokens", "tokens_per_param", "flops")
    return (
        number in (students.teachers or [number])
        and set(teacher.params) <= set(students.params)
        and all(set(getattr(teacher, name) or ()) <= set(getattr(students, name) or ()) for name in lengths)
        and set(teacher.seeds) <= set(students.seeds)
        and teacher.data_seed == students.data_seed
    )


@lru_cache(maxsize=32)
def _block_rewriter(part: CounterfactualTeacher, encoding: TextEncoding) -> BlockRewriter:
    from sweeps.unlearning.blocks import BlockRewriter
    from sweeps.unlearning.counterfactual import Rewriter, choose_substitutes

    pool = [part.named(name) for name in part.substitutes]
    rewriter = Rewriter(
        encoding=encoding,
        targets=part.targets,
        substitutes=choose_substitutes(part.targets, pool, part.universes, part.substitute_seed),
        rename_back=part.rename_back,
        rename_first=part.rename_first,
        keep_after_name=part.keep_after_name,
    )
    return BlockRewriter(rewriter)


@lru_cache(maxsize=32)
def _averaging(part: CounterfactualTeacher, blocks: BlockRewriter) -> Averaging:
    from sweeps.unlearning.counterfactual import Averaging

    return Averaging(rewriter=blocks.rewriter, hard=part.hard, name_penalty=part.name_penalty)


class BoundedMemory(dict[tuple[int, ...], "Floats"]):
    """Means by the tokens of their blocks, as epochs repeat them; it is emptied when it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __setitem__(self, tokens: tuple[int, ...], mean: Floats) -> None:
        self.bytes += mean.nbytes
        if self.bytes > MEMORY_BYTES:
            self.clear()
            self.bytes = mean.nbytes
        super().__setitem__(tokens, mean)


@lru_cache(maxsize=2)
def _means(part: CounterfactualTeacher, teacher: Online) -> BoundedMemory:  # noqa: ARG001
    return BoundedMemory()


def _distributions(models: Models, block: RewrittenBlock) -> Floats:
    """Return the teacher's distributions in the universes of a block, ``(universes, kept, vocab)``.

    Blocks are read one at a time, so that what is found does not depend on which are remembered.
    """
    import numpy as np
    import torch

    from sweeps.model.device import device
    from sweeps.model.language_model import logits_of
    from sweeps.model.log_probs import log_probabilities

    versions = block.found.versions
    width = max(map(len, versions))
    tokens = torch.tensor([[*each, *([0] * (width - len(each)))] for each in versions], device=device())
    with torch.no_grad():
        features = models.teacher.model(tokens)
        at = torch.from_numpy(block.found.partners).to(features.device)
        chosen = features.gather(1, at[..., None].expand(-1, -1, features.shape[-1]))
        p = log_probabilities(logits_of(models.teacher, chosen)).exp()
    return np.asarray(p.cpu().numpy())
