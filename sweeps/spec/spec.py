"""Declarative spec of a sweep, validated when it is read; every field has a unit.

Sizes and tokens are written as people write them (``100k``, ``1.5M``, ``2e6``).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from scaling.errors import InputError
from sweeps.spec.corpus import Base, Corpus
from sweeps.spec.fields import (
    AutoOrBool,
    AutoOrQuantity,
    Count,
    Measures,
    Number,
    Quantity,
    Ratio,
    Seed,
    Seeds,
    SpecModel,
    SwitchOrSizes,
)
from sweeps.spec.method.compatibility import projection_objections, trainer_objections
from sweeps.spec.method.method import VARIANTS, Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.parsing.messages import explain_problem
from sweeps.spec.parsing.overrides import apply_overrides
from sweeps.spec.parsing.yaml_text import read_yaml
from sweeps.spec.pretrained import Pretrained, objections_to_served
from sweeps.spec.protocols import ProtocolName, protocol_violation
from sweeps.spec.resources import Caps, Devices, ResourceRules
from sweeps.spec.trainer import (
    ROLES,
    TRAINERS,
    OneTrainer,
    Role,
    SweepTrainer,
    Trainer,
    TrainersByRole,
)
from sweeps.spec.tuning import Tuning

MOST_CELLS = 250_000
"""Runs that a spec may ask for, equal ones counted each time."""
WARMUP_STEPS = 50
MIN_STEPS = 500
"""Runs of fewer optimizer steps measure the number of steps, not the data."""


class Training(SpecModel):
    """Training rules of every model, in tokens, so that a longer run is only longer."""

    part = "training"

    batch_tokens: Quantity = 512.0
    """Tokens per optimizer step, a multiple of the context."""
    warmup_tokens: Quantity | None = None
    """Tokens of linear warm-up; 50 optimizer steps if not given."""
    learning_rate: Number = Field(0.01, gt=0)
    """Peak learning rate at the base width; mu-P (simple) carries it to other widths."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After warm-up: a cosine to the end, or warm-up-stable-decay, whose runs of one size share a prefix."""
    decay_fraction: Number = Field(0.2, gt=0, le=0.9)
    """Share of a run over which ``wsd`` decays, linearly; the rate is constant before."""
    final_lr_fraction: Number = Field(0.001, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    weight_decay: Number = Field(1e-4, ge=0)
    """Decoupled weight decay of matrices."""
    max_grad_norm: Number = Field(1.0, gt=0)
    """Largest global norm of the gradient."""
    z_loss: Number = Field(1e-4, ge=0)
    """Weight of the z-loss."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """In which matrices are multiplied, a teacher's too; weights, norms and losses of runs stay fp32, and so
    do their held-out losses."""
    deterministic: bool = False
    """Use only kernels that compute the same bits each time on a GPU, where sums are otherwise added in any
    order: slower, most of all the backward pass of attention, and an operation without such a kernel is
    refused. Nothing changes on a CPU, which computes the same bits anyway."""
    compile: SwitchOrSizes = False
    """Translate each shape of model to machine code first: half a minute a shape, once for this machine. A
    list names the sizes. ``auto``: those whose runs save more time than that, decided once for a store."""
    micro_batch_tokens: AutoOrQuantity = "auto"
    """Tokens that a process takes forward and backward at once, a multiple of the context; the batch, and so
    the loss but for rounding, stays as it is. ``auto``: as many as fit, by the memory model."""
    shard: AutoOrBool = "auto"
    """Shard weights, moments and gradients of a run over its processes (FSDP2), one block at a time.
    ``auto``: where a run does not fit whole on each device."""
    recompute: AutoOrBool = "auto"
    """Keep only the inputs of blocks for the backward pass and recompute the rest (activation checkpointing),
    a third more work. ``auto``: where a run does not fit otherwise."""

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of warm-up, at least one."""
        if self.warmup_tokens is None:
            return WARMUP_STEPS
        return max(1, round(self.warmup_tokens / self.batch_tokens))

    def steps(self, tokens: float) -> int:
        """Optimizer steps of a run of ``tokens`` tokens."""
        return round(tokens / self.batch_tokens)

    def stable_steps(self, steps: int) -> int:
        """Steps of a ``wsd`` run of ``steps`` before it decays."""
        return steps - max(1, round(self.decay_fraction * steps))


class Grid(SpecModel):
    """Every size crossed with every length; lengths as tokens, tokens per parameter, or training FLOPs."""

    params: list[Quantity] = Field(min_length=1)
    """Non-embedding parameters; the nearest size on the ladder is trained."""
    tokens: list[Quantity] | None = Field(None, min_length=1)
    """Training tokens."""
    tokens_per_param: list[Ratio] | None = Field(None, min_length=1)
    """Training tokens per non-embedding parameter, D/N: 20, or 20:1."""
    flops: list[Quantity] | None = Field(None, min_length=1)
    """Training FLOPs of each run (an IsoFLOP profile per value)."""
    seeds: Seeds = [0]
    """One run per seed; a seed sets initialization and, unless ``data_seed`` does, the order of the data."""
    data_seed: Seed | None = None
    """One order of the data for all seeds."""
    measure: Measures = ["decayed"]
    """Kind of loss: ``decayed``, of runs that are trained to their end; ``projected``, of runs that end
    before their decay under ``wsd``, by the decay of the shortest run of the same size; or both, among which
    ``distlaw sweep next`` and ``auto`` choose."""
    trainer: OneTrainer | None = None
    """Command that trains these in the place of the sweep's trainer; ``distlaw`` is our own."""

    @model_validator(mode="after")
    def _one_length(self) -> Grid:
        given = [name for name in ("tokens", "tokens_per_param", "flops") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of tokens, tokens_per_param, flops; found {' and '.join(given) or 'none'}"
            )
        return self

    @property
    def cells(self) -> int:
        """Runs that it asks for, of each teacher and with each method."""
        lengths = self.tokens or self.tokens_per_param or self.flops or ()
        return len(self.params) * len(lengths) * len(self.seeds) * len(self.measure)


class Students(Grid):
    """Students, each of which is distilled from every teacher with every method, or from some with some."""

    methods: list[Method] | None = Field(None, min_length=1)
    """The methods of these, if they are not the sweep's."""
    teachers: list[Annotated[Count, Field(ge=0)]] | None = Field(None, min_length=1)
    """Teachers of these students, by their index in the sweep's list, from 0; all if not given."""


def _kind_of_teacher(given: Any) -> str:
    return "pretrained" if isinstance(given, Pretrained) or "model" in _keys(given) else "grid"


def _keys(given: Any) -> Any:
    return given if isinstance(given, dict) else ()


TEACHERS: dict[str, type[SpecModel]] = {"grid": Grid, "pretrained": Pretrained}
Teacher = Annotated[
    Annotated[Grid, Tag("grid")] | Annotated[Pretrained, Tag("pretrained")],
    Discriminator(_kind_of_teacher),
]


SpecLike = str | Path | Mapping[str, Any]
"""A YAML file, the name of a preset, or the fields of a spec."""


class Sweep(SpecModel):
    """A sweep: supervised runs, teachers, and students distilled from every teacher."""

    part = ""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    corpus: Corpus = Corpus()
    aspect_ratio: Number = Field(32.0, gt=0)
    """Width per layer of every model (the paper's ladder has 128)."""
    training: Training = Training()
    protocol: ProtocolName | None = None
    """One of the paper's, which teachers and students must then follow; free grids otherwise."""
    base: Base | None = None
    """A text before the corpus, for teachers and for students whose methods begin where the teacher's did."""
    supervised: list[Grid] = []
    """Runs trained on the data alone. Those that are also teachers are trained once."""
    teachers: list[Teacher] = []
    """Runs that students are distilled from, and models that exist already."""
    students: list[Students] = []
    """Students; each is distilled from every teacher with every method."""
    methods: list[Method] = Field([Method()], min_length=1)
    """Distillation methods of all students that have none of their own."""
    trainer: SweepTrainer | None = None
    """Command that trains all runs, or those of ``supervised``, ``teachers`` or ``students``, in the place of
    our own trainer."""
    tuning: Tuning | None = None
    """Hyperparameters that ``distlaw sweep tune`` searches before the sweep."""
    resources: ResourceRules = []
    """Resources of steps, by size; if not given one core, or of GPUs what memory needs, from a quarter."""
    hardware: Devices = Devices()
    """Hardware and price from which time and money are estimated."""
    caps: Caps = Caps()
    """Caps on what the sweep may spend."""
    share_prefixes: bool = True
    """Under ``wsd``, train runs that differ only in length from a shared prefix: same bits, less work."""
    allow_weak_teachers: bool = False
    """Accept students larger than every teacher."""

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        if self.students and not self.teachers:
            raise ValueError("students need teachers: add a 'teachers' grid")
        if self.teachers and not self.students:
            raise ValueError("teachers without students: list them under 'supervised' or add 'students'")
        for number, grid in enumerate(self.students):
            if (asked := max(grid.teachers or [0])) > (last := len(self.teachers) - 1):
                raise ValueError(
                    f"students[{number}].teachers: no teacher has number {asked}; the last is {last}"
                )
        if not (self.supervised or self.students):
            raise ValueError("nothing to run: give 'supervised' grids, or 'teachers' and 'students'")
        if (cells := self._cells()) > MOST_CELLS:
            raise ValueError(
                f"{cells:,} runs asked for, equal ones counted each time; at most {MOST_CELLS:,}: shorten "
                "the lists of a grid, whose product they are"
            )
        micro = self.training.micro_batch_tokens
        for where, size in [*self._batches(), ("training.micro_batch_tokens", micro)]:
            if size != "auto" and size % self.corpus.context:
                raise ValueError(
                    f"{where} ({size:g}) must be a multiple of corpus.context ({self.corpus.context})"
                )
        if found := self.hardware.objection(self.training.precision) or protocol_violation(self):
            raise ValueError(found)
        for where, method in self.methods_given():
            if found := next(self._objections(method), None):
                raise ValueError(f"{where}.{found}")
        for found in (*self._objections_to_served(), *trainer_objections(self), *projection_objections(self)):
            raise ValueError(found)
        return self

    def _cells(self) -> int:
        of_teachers = [each.cells if isinstance(each, Grid) else 1 for each in self.teachers]
        cells = sum(grid.cells for grid in self.supervised) + sum(of_teachers)
        for grid in self.students:
            chosen = of_teachers if grid.teachers is None else [of_teachers[n] for n in grid.teachers]
            cells += grid.cells * sum(chosen) * len(grid.methods or self.methods)
        return cells

    def _batches(self) -> list[tuple[str, float]]:
        """Tokens of every batch that may be trained on, each with its place in the spec."""
        tried = (self.tuning and self.tuning.batch_tokens) or []
        places = [(f"tuning.batch_tokens[{number}]", size) for number, size in enumerate(tried)]
        return [("training.batch_tokens", self.training.batch_tokens), *places]

    @property
    def smallest_batch(self) -> int:
        """Blocks of the smallest batch that may be trained on."""
        return min(round(size / self.corpus.context) for _, size in self._batches())

    def _objections(self, method: Method) -> Iterator[str]:
        """Yield why ``method`` cannot be run in this sweep, with the field of the method."""
        if method.logits in ("top-k", "top-p") and method.top >= self.corpus.vocab:
            yield f"top: {method.top} of {self.corpus.vocab} tokens are all of them; set logits: cached"
        last = len(self.teachers) - 1
        if (asked := max(method.other_teachers, default=last)) > last:
            yield f"other_teachers: no teacher has number {asked}; the last is {last}"
        if self.training.compile not in (False, "auto") and method.auxiliary_losses:
            yield "auxiliary_losses: heads and hidden states are not compiled; set training.compile: false"
        for part in parts_of(method):
            yield from part.sweep_objections(self, method)

    def _objections_to_served(self) -> Iterator[str]:
        """Yield why a method cannot follow a teacher that is served elsewhere."""
        served = {n for n, each in enumerate(self.teachers) if isinstance(each, Pretrained) and each.source}
        for number, grid in enumerate(self.students):
            for place, method in enumerate(grid.methods or self.methods):
                asked = {*(range(len(self.teachers)) if grid.teachers is None else grid.teachers)}
                if served & {*asked, *method.other_teachers}:
                    where = f"students[{number}].methods" if grid.methods else "methods"
                    yield from (f"{where}[{place}].{why}" for why in objections_to_served(method))
                    if grid.trainer or self.trainer_of("students", grid):
                        yield f"students[{number}].trainer: a command cannot read a served teacher's cache"

    def trainer_of(self, field: Role, grid: Grid) -> Trainer | None:
        """Return the trainer of the runs of ``grid``: its own or the sweep's; None for ours."""
        if grid.trainer is not None:
            return None if isinstance(grid.trainer, str) else grid.trainer
        shared: Trainer | None = (
            getattr(self.trainer, field) if isinstance(self.trainer, TrainersByRole) else self.trainer
        )
        return shared

    @property
    def trainers(self) -> dict[str, Trainer]:
        """Commands that train runs, by the places of their grids."""
        found = {where: self.trainer_of(field, grid) for field in ROLES for where, grid in self.grids(field)}
        return {where: trainer for where, trainer in found.items() if trainer}

    @property
    def command_lines(self) -> list[str]:
        """Commands that the sweep runs as this user, a line each, with the grids that they train."""
        places: dict[str, list[str]] = {}
        for where, trainer in self.trainers.items():
            words = shlex.join(trainer.command) if trainer.command else "none: trained elsewhere"
            places.setdefault(f"{words}  (version {trainer.version})", []).append(where)
        return [f"command    {', '.join(found)}: {words}" for words, found in places.items()]

    def grids(self, field: Role) -> Iterator[tuple[str, Grid]]:
        """The grids of ``field``, each with its place in the spec."""
        for number, given in enumerate(getattr(self, field)):
            if isinstance(given, Grid):
                yield f"{field}[{number}]", given

    def methods_given(self) -> Iterator[tuple[str, Method]]:
        """Every method that is used, each with its place in the spec."""
        lists = {f"students[{n}].methods": grid.methods for n, grid in enumerate(self.students)}
        if not lists or None in lists.values():
            lists["methods"] = self.methods
        for where, methods in lists.items():
            for number, method in enumerate(methods or []):
                yield f"{where}[{number}]", method


def load_sweep(spec: SpecLike, changes: Sequence[str] = ()) -> Sweep:
    """Read and validate a spec.

    Args:
        spec: A YAML file, the name of a preset such as ``quickstart``, or a mapping of fields.
        changes: Applied first, each a ``FIELD=VALUE``.

    Raises:
        InputError: Naming the file, every wrong field, what was found and what would be right.
    """
    where = spec_name(spec)
    data = dict(spec) if isinstance(spec, Mapping) else read_yaml(_read_spec(spec), where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping of fields at the top, found {type(data).__name__}")
    return parse_sweep(apply_overrides(data, changes), where)


def parse_sweep(data: dict[str, Any], where: str = "spec") -> Sweep:
    """Validate a spec that is already a mapping; errors name ``where`` and the fields."""
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        lines = [
            explain_problem(problem, Sweep, TEACHERS | VARIANTS | TRAINERS) for problem in error.errors()
        ]
        raise InputError("\n  ".join([f"{where}: {len(lines)} wrong", *lines])) from None


def spec_name(spec: SpecLike) -> str:
    """Return how messages name a spec."""
    if isinstance(spec, Mapping):
        return "spec"
    return str(spec) if Path(spec).is_file() else f"preset {spec}"


def presets() -> dict[str, str]:
    """The presets that ship with distlaw: name to YAML text."""
    folder = files("sweeps") / "presets"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def _read_spec(spec: str | Path) -> str:
    path = Path(spec)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
    known = presets()
    if str(spec) in known:
        return known[str(spec)]
    raise InputError(f"{path}: no such file, and no such preset (presets: {', '.join(sorted(known))})")
