"""Requests of the API: the planner's questions, with every list bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from distlaw.options import counting
from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, published
from scaling.costs.budget import Budget, device_named, parse_budget, parse_several_budgets
from scaling.costs.hardware import UTILISATION, Hardware, hardware
from scaling.costs.scenarios import SCENARIOS
from scaling.errors import InputError
from scaling.planner.question import Question
from scaling.planner.teacher_catalogue import (
    PRICE,
    KnownTeacher,
    ask_teacher,
    parse_teachers,
    shared_vocabulary,
    teacher_names,
)
from scaling.units import Unit, parse_count, parse_list, parse_number, parse_quantity, unit_of

LARGEST_BODY = 4 << 20
"""Bytes of a request: a calibration of several thousand draws."""
LONGEST_NAME = 100
MOST_DRAWS = 4000
"""Most draws of an uploaded calibration."""
MOST_TEACHERS = 200
MOST_COMPARED = 24
"""Most calibrations of one comparison: all that ship, and uploaded ones."""
TEACHER_DETAILS = ("tokens", "loss", "active_params")
"""Fields that a teacher named by an open model or a size may have."""
FRONTIER_POINTS = 25

Short = Annotated[str, StringConstraints(max_length=100)]


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, or a text such as 300M, 1.5B or 1e21")
    return value


def _reader(parse: Callable[[str, str], float]) -> BeforeValidator:
    """Read texts with ``parse``."""

    def read(value: Any) -> Any:
        try:
            return parse(value, "") if isinstance(value, str) else _no_bool(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix(": ")) from None

    return BeforeValidator(read)


Quantity = Annotated[
    float | Short,
    BeforeValidator(_no_bool),
    Field(description="A number, or a text such as 300M, 1.5B or 1e21"),
]
Count = Annotated[int, _reader(parse_count)]
Number = Annotated[float, _reader(parse_number)]
Bound = Annotated[
    Quantity | tuple[Quantity | None, Quantity | None],
    Field(description="[smallest, largest], null leaving a side open; one quantity alone fixes the variable"),
]
Fitted = Annotated[
    Short | dict[str, Any],
    Field(description="Name of a published calibration, or the content of a calibration's file"),
]
Range = tuple[Quantity, Quantity]
Several = Annotated[
    Annotated[list[Quantity], Field(max_length=12)] | Short,
    Field(description="Quantities, or one text that lists them, separated by commas"),
]


def _named(value: Any) -> Any:
    """Return a teacher given by its name alone as an object."""
    return {"name": value} if isinstance(value, str) else value


class Request(BaseModel):
    """Strict: what is misspelt is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Teacher(Request):
    """A model one could distil from; its loss or its tokens must be known."""

    name: Annotated[Short, Field(description="Without params: that of an open model, or a size such as 8B")]
    params: Quantity | None = None
    loss: Quantity | None = None
    tokens: Quantity | None = None
    dollars_per_million_tokens: Quantity | None = None
    vocab: Count | None = None
    active_params: Quantity | None = None
    forward_flops: Quantity | None = None

    def known(self) -> KnownTeacher:
        """The planner's own."""
        named = ("params", "loss", "tokens", PRICE, "active_params", "forward_flops")
        numbers: dict[str, Any] = {
            name: parse_quantity(value, f"teacher {self.name}: {name}", unit_of(name), zero=name == PRICE)
            for name in named
            if (value := getattr(self, name)) is not None
        }
        if self.params is None:
            found = ask_teacher(self.name, **{name: numbers.pop(name, None) for name in TEACHER_DETAILS})
            return replace(found, **numbers, vocab=self.vocab or found.vocab)
        rest = self.model_dump(exclude={*named})
        return KnownTeacher(**rest, **numbers)


class Device(Request):
    """Hardware to price a plan on; the shipped table gives what is left out."""

    name: Short
    precision: Short | None = None
    utilisation: Quantity = UTILISATION
    count: Count = 1
    dollars_per_hour: Quantity | None = None
    peak_flops: Quantity | None = None

    def known(self) -> Hardware:
        """The planner's own."""
        utilisation = parse_quantity(self.utilisation, "device.utilisation", "")
        price = optional(self.dollars_per_hour, "device.dollars_per_hour", "")
        peak = optional(self.peak_flops, "device.peak_flops", "FLOP/s")
        try:
            return hardware(
                self.name,
                precision=self.precision,
                utilisation=utilisation,
                count=self.count,
                dollars_per_hour=price,
                peak_flops=peak,
            )
        except InputError as error:
            raise InputError(f"device: {error}") from error


class Asked(Request):
    """A question to one calibration."""

    calibration: Fitted = DEFAULT_CALIBRATION
    uncertainty: bool = Field(
        True,
        description="False is many times faster: no probability, and intervals that hold no more than "
        "the disagreement between laws",
    )


class PredictRequest(Asked):
    """Question about the losses of a student on these tokens, alone and with a teacher."""

    student_params: Quantity
    student_tokens: Annotated[Quantity, Field(description="Tokens, or per parameter such as 20:1")]
    teacher_loss: Quantity | None = None
    teacher_params: Quantity | None = None
    teacher_tokens: Quantity | None = None


class Described(Asked):
    """Fields that plans, frontiers and maps have in common."""

    student_params: Quantity | None = None
    scenarios: Annotated[list[Short], Field(min_length=1, max_length=8)] = list(SCENARIOS)
    law: Short | None = None
    constraints: Annotated[dict[Short, Bound], Field(max_length=8)] = {}
    lifetime_tokens: Quantity = 0.0
    student_unique_tokens: Quantity | None = None
    teacher_unique_tokens: Quantity | None = None
    flops_rule: Short | None = None
    context: Annotated[Count, Field(ge=1, le=10**9)] | None = None
    vocab: Annotated[Count, Field(ge=2, le=10**9)] | None = None
    aspect_ratio: Annotated[Number, Field(gt=0, le=1e6, description="d_model / n_layers")] | None = None
    extrapolate: bool = Field(False, description="Let a teacher that exists lie outside the fitted runs")

    def teacher_vocab(self) -> int | None:
        """Return the vocabulary that the student has from teachers; None where there is none."""
        return None

    def question(self, fitted: Calibration, **rest: Any) -> Question:
        """The planner's own."""
        given: dict[str, Any] = {
            "student_params": self.student_params,
            "scenarios": tuple(self.scenarios),
            "law": self.law,
            "constraints": self.constraints,
            "lifetime_tokens": self.lifetime_tokens,
            "architecture": counting(
                fitted, self.flops_rule, self.context, self.vocab or self.teacher_vocab(), self.aspect_ratio
            ),
            "extrapolate": self.extrapolate,
        }
        unique = {
            name: value
            for name in ("student_unique_tokens", "teacher_unique_tokens")
            if (value := getattr(self, name)) is not None
        }
        return Question(**given | unique | rest)


class PlanRequest(Described):
    """Distil or train directly, with which teacher, at what cost?"""

    budget: Quantity | None = None
    target_loss: Quantity | None = None
    teachers: Annotated[
        Annotated[list[Annotated[Teacher, BeforeValidator(_named)]], Field(max_length=MOST_TEACHERS)]
        | Annotated[str, StringConstraints(max_length=50_000)],
        Field(
            description="Teachers that exist: names or sizes (Qwen/Qwen3-8B, 8B), objects, or one text that "
            "lists names or holds a CSV table"
        ),
    ] = []
    family: Several = []
    weights: Several = []
    tolerance: Quantity | None = None
    device: Device | None = None
    store_logits: Annotated[
        Short, Field(description="Say in the notes what storing the logits takes: full, or how many a token")
    ] = ""

    def asked(self, fitted: Calibration) -> Question:
        """The planner's own question."""
        spending, device = self.spending(), self.hardware()
        return self.question(
            fitted,
            budget=None if spending is None else spending.flops,
            target_loss=self.target_loss,
            teachers=self.known_teachers(),
            family=several(self.family, "family", "params"),
            weights=several(self.weights, "weights", ""),
            tolerance=self.tolerance,
            flops_per_dollar=device.flops_per_dollar if device else 0.0,
        )

    def hardware(self) -> Hardware | None:
        """Return the device asked for, or the one that the budget's text names."""
        if self.device:
            return self.device.known()
        named = device_named(self.budget) if isinstance(self.budget, str) else ""
        try:
            return hardware(named) if named else None
        except InputError as error:
            raise InputError(f"budget: {error}") from error

    def spending(self) -> Budget | None:
        """Return the budget in FLOPs with the device that counts it."""
        return None if self.budget is None else parse_budget(self.budget, "budget", self.hardware())

    def known_teachers(self) -> tuple[KnownTeacher, ...]:
        """The teachers, however they were given."""
        try:
            if not isinstance(self.teachers, str):
                return tuple(teacher.known() for teacher in self.teachers)
            found = parse_teachers(self.teachers)
        except InputError as error:
            named = str(error).startswith("teacher")
            raise InputError(str(error) if named else f"teachers: {error}") from error
        if len(found) > MOST_TEACHERS:
            raise InputError(f"teachers: {len(found)} given; at most {MOST_TEACHERS} are compared at once")
        return found

    def plain_teachers(self) -> list[Teacher]:
        """Return the teachers if the options of the command line say all of them; else none."""
        if isinstance(self.teachers, str):
            return [Teacher(name=name) for name in teacher_names(self.teachers)]
        known = {"name", *TEACHER_DETAILS} if len(self.teachers) == 1 else {"name"}
        return [] if any(each.model_fields_set - known for each in self.teachers) else self.teachers

    def named_teachers(self) -> list[str]:
        """Return the teachers given by name or size alone, whose vocabulary the student takes."""
        if isinstance(self.teachers, str):
            return teacher_names(self.teachers)
        return [teacher.name for teacher in self.teachers if teacher.params is None]

    def teacher_vocab(self) -> int | None:
        """Return the vocabulary that the student has from its named teachers; None where it is given."""
        return None if self.vocab or not self.named_teachers() else shared_vocabulary(self.known_teachers())


class FrontierRequest(Described):
    """The best loss at every budget of a range."""

    budgets: Range
    points: Annotated[int, Field(ge=2, le=60)] = FRONTIER_POINTS


class MapRequest(Described):
    """Distilling against direct training over budgets and student sizes, under the first scenario."""

    budgets: Range
    students: Range
    columns: Annotated[int, Field(ge=2, le=40)] = 32
    rows: Annotated[int, Field(ge=2, le=30)] = 20


class CompareRequest(Request):
    """One question put to several calibrations and all of their laws."""

    student_params: Quantity
    budget: Quantity
    scenarios: Annotated[list[Short], Field(min_length=1, max_length=8)] = list(SCENARIOS)
    calibrations: Annotated[list[Fitted], Field(max_length=MOST_COMPARED)] = []


class DesignRequest(Request):
    """Design of a sweep for a question: which runs to declare, and what they are expected to show."""

    student_params: Quantity | None = None
    budget: Quantity
    spend: Annotated[Quantity, Field(description="FLOPs of the whole sweep, or hours, or dollars")]
    scenarios: Annotated[list[Short], Field(min_length=1, max_length=8)] = list(SCENARIOS)
    prior: Annotated[
        Fitted | None,
        Field(description="Law of another corpus on the same code, block and ladder; weak priors without"),
    ] = None
    context: Annotated[Count, Field(ge=1, le=10**9)] | None = None
    vocab: Annotated[Count, Field(ge=2, le=10**9)] | None = None
    aspect_ratio: Annotated[Number, Field(gt=0, le=1e6, description="d_model / n_layers")] | None = None


def fitted_by(calibration: str | Mapping[str, Any]) -> Calibration:
    """A published calibration by name, or one from its content; never a file of this machine.

    Raises :class:`~scaling.errors.InputError`.
    """
    if isinstance(calibration, str):
        if calibration not in published():
            raise InputError(
                f"calibration: none is called {calibration!r}; there are {', '.join(published())}"
            )
        return Calibration.load(calibration)
    fitted = Calibration.from_dict(calibration)
    if len(fitted.name) > LONGEST_NAME:
        raise InputError(f"calibration: its name has {len(fitted.name)} characters; at most {LONGEST_NAME}")
    if fitted.draw_count > MOST_DRAWS:
        raise InputError(f"calibration: {fitted.draw_count} draws; at most {MOST_DRAWS} are served")
    return fitted


def span(budgets: Range, name: str, unit: Unit) -> tuple[float, float]:
    """The two ends of a range.

    Raises :class:`~scaling.errors.InputError` where they are not in order.
    """
    if unit == "FLOPs":
        low, high = (budget.flops for budget in budget_span(budgets, name))
    else:
        low, high = (parse_quantity(end, name, unit) for end in budgets)
    if low >= high:
        raise InputError(f"{name}: write [low, high] with low below high, not {budgets!r}")
    return low, high


def budget_span(budgets: Range, name: str) -> tuple[Budget, Budget]:
    """Return the two budgets of a range, with the device that counts them.

    Raises:
        InputError: Where they are not in order.
    """
    low, high = parse_several_budgets(budgets, name)
    if low.flops >= high.flops:
        raise InputError(f"{name}: write [low, high] with low below high, not {budgets!r}")
    return low, high


def optional(value: float | str | None, name: str, unit: Unit) -> float | None:
    """A quantity, if there is one."""
    return None if value is None else parse_quantity(value, name, unit)


def several(values: Sequence[float | str] | str, name: str, unit: Unit) -> tuple[float, ...]:
    """Quantities, however they were listed."""
    if isinstance(values, str):
        return parse_list(values, name, unit)
    return tuple(parse_quantity(value, name, unit) for value in values)
