"""The command line and the Python that ask what a request asks.

An uploaded calibration and a catalogue appear under the names of files that the user has or saves.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from distlaw.options import OPTIONS
from distlaw.serve.requests import (
    TEACHER_DETAILS,
    CompareRequest,
    Described,
    DesignRequest,
    Fitted,
    FrontierRequest,
    PlanRequest,
    PredictRequest,
    several,
    span,
)
from scaling.calibration.calibration import DEFAULT_CALIBRATION, published
from scaling.costs.budget import parse_budget
from scaling.costs.scenarios import SCENARIOS
from scaling.planner.teacher_catalogue import KnownTeacher
from scaling.units import parse_quantity

FLAG = object()
"""The value of an option that takes none."""
UPLOAD, CATALOGUE = "calibration.json", "teachers.csv"
Options = list[tuple[str, object]]


def of_plan(request: PlanRequest) -> dict[str, str]:
    """``distlaw plan`` and :func:`scaling.plan`."""
    device = request.device
    options: Options = [
        ("--student", request.student_params),
        ("--budget", request.budget),
        ("--target-loss", _number(request.target_loss)),
        *_shared_options(request),
        *_teacher_options(request),
        ("--family", _listed(request.family)),
        ("--weights", _listed(request.weights)),
        ("--tolerance", _number(request.tolerance)),
        ("--store-logits", request.store_logits),
    ]
    if device:
        options += [
            ("--gpu", device.name),
            ("--precision", device.precision),
            ("--mfu", device.utilisation if "utilisation" in device.model_fields_set else None),
            ("--count", device.count if "count" in device.model_fields_set else None),
            ("--price", device.dollars_per_hour),
            ("--peak", device.peak_flops),
        ]
    given = _shared_arguments(request) | {
        "budget": _budget(request),
        "target_loss": request.target_loss,
        "family": several(request.family, "family", "params") or None,
        "weights": several(request.weights, "weights", "") or None,
        "tolerance": request.tolerance,
    }
    names = ["Question", "plan"]
    literal = _literals(given)
    if plain := request.plain_teachers():
        literal["teachers"] = repr([teacher.name for teacher in plain])
        if set(plain[0].model_fields_set) != {"name"}:
            names.append("KnownTeacher")
            literal["teachers"] = f"[{_known_teacher(request.known_teachers()[0])}]"
            literal |= _literals({"vocab": request.teacher_vocab()})
    elif request.teachers:
        names.append("read_catalogue")
        literal["teachers"] = f"read_catalogue({CATALOGUE!r})"
    if device:
        names.append("hardware")
        arguments = _literals(device.model_dump(exclude={"name"}, exclude_defaults=True))
        called = ", ".join([repr(device.name), *(f"{key}={value}" for key, value in arguments.items())])
        literal["flops_per_dollar"] = f"hardware({called}).flops_per_dollar"
    lines = _question(names, literal, request)
    return _both("plan", options, [*lines, f"print(plan(question, {_file(request.calibration)!r}).headline)"])


def _teacher_options(request: PlanRequest) -> Options:
    """Return the options that name the teachers, or the catalogue that holds them."""
    plain = request.plain_teachers()
    if not plain:
        return [("--teachers", CATALOGUE if request.teachers else None)]
    named: Options = [("--teacher", teacher.name) for teacher in plain]
    return named + [(OPTIONS[field], getattr(plain[0], field)) for field in TEACHER_DETAILS]


def _known_teacher(teacher: KnownTeacher) -> str:
    """Return a teacher as it is written in Python."""
    given = {name: value for name, value in asdict(teacher).items() if value is not None}
    return f"KnownTeacher({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _budget(request: PlanRequest) -> object:
    """Return the budget for Python, which reads hours and dollars only of a device that the text names."""
    if not (request.device and isinstance(request.budget, str)):
        return request.budget
    spending = request.spending()
    return None if spending is None else spending.flops


def of_frontier(request: FrontierRequest) -> dict[str, str]:
    """``distlaw plan`` with a range, and :func:`scaling.frontiers.frontier`."""
    low, high = span(request.budgets, "budgets", "FLOPs")
    options: Options = [
        ("--student", request.student_params),
        ("--budget", f"{_text(low)}:{_text(high)}"),
        *_shared_options(request),
    ]
    literal = _literals(_shared_arguments(request) | {"budget": high})
    lines = ["import numpy as np", "", *_question(["Question", "frontier"], literal, request)]
    lines.append(f"budgets = np.geomspace({low!r}, {high!r}, {request.points})")
    lines.append(f"print(frontier(question, budgets, {_file(request.calibration)!r}).headline)")
    return _both("plan", options, lines)


def of_predict(request: PredictRequest) -> dict[str, str]:
    """``distlaw predict`` and :func:`scaling.predict`."""
    options: Options = [
        ("--student", request.student_params),
        ("--tokens", request.student_tokens),
        ("--teacher-loss", _number(request.teacher_loss)),
        ("--teacher", request.teacher_params),
        ("--teacher-tokens", request.teacher_tokens),
        ("--calibration", _named(request.calibration)),
    ]
    given = request.model_dump(include={"student_params", "student_tokens"}) | {
        "teacher_loss": _number(request.teacher_loss),
        "teacher_params": request.teacher_params,
        "teacher_tokens": request.teacher_tokens,
    }
    body = [f"    {name}={value}," for name, value in _literals(given).items()]
    head = f"found = predict(\n    {_file(request.calibration)!r},"
    return _both(
        "predict", options, ["from scaling import predict", "", head, *body, ")", "print(found.losses)"]
    )


def of_compare(request: CompareRequest) -> dict[str, str]:
    """``distlaw compare``, and a loop in Python over the same calibrations and laws."""
    options: Options = [
        ("--student", request.student_params),
        ("--budget", request.budget),
        *(("--calibration", _file(each)) for each in request.calibrations),
        *_scenarios(request.scenarios),
    ]
    given = {
        "student_params": request.student_params,
        "budget": request.budget,
        "scenarios": _tuple(request.scenarios),
    }
    arguments = ", ".join(f"{name}={value}" for name, value in _literals(given).items())
    names = [_file(each) for each in request.calibrations] or list(published())
    lines = [
        "from scaling import Calibration, Question, plan",
        "",
        f"for name in {names!r}:",
        "    calibration = Calibration.load(name)",
        "    for law in calibration.distillation or [None]:",
        f"        question = Question({arguments}, law=law)",
        "        print(name, law, plan(question, calibration).headline)",
    ]
    return _both("compare", options, lines)


def of_design(request: DesignRequest) -> dict[str, str]:
    """``distlaw design`` and :func:`fits.design.sweep_design.design_for`."""
    prior = None if request.prior is None else _file(request.prior)
    numbers = {name: getattr(request, name) for name in ("context", "vocab", "aspect_ratio")}
    options: Options = [
        ("--student", request.student_params),
        ("--budget", request.budget),
        ("--spend", request.spend),
        *_scenarios(request.scenarios),
        ("--prior", prior),
        *((OPTIONS.get(name, f"--{name.replace('_', '-')}"), value) for name, value in numbers.items()),
    ]
    given = {
        "student_params": request.student_params,
        "budget": request.budget,
        "scenarios": _tuple(request.scenarios),
    }
    arguments = ", ".join(f"{name}={value}" for name, value in _literals(given).items())
    called = [f"[Question({arguments})]", repr(parse_budget(request.spend, "spend").flops)]
    lines = ["from fits.design.sweep_design import design_for"]
    if prior:
        lines.append("from fits.estimation.laws.sibling import Sibling")
        called.append(f"sibling=Sibling.of({prior!r})")
    counted = ", ".join(f"{name}={value}" for name, value in _literals(numbers).items())
    if counted:
        called.append(f"architecture=Architecture({counted})")
    names = "Architecture, Question" if counted else "Question"
    lines += [f"from scaling import {names}", "", f"print(design_for({', '.join(called)}))"]
    return _both("design", options, lines)


def _both(verb: str, options: Options, lines: Iterable[str]) -> dict[str, str]:
    words = ["distlaw", verb]
    for name, value in options:
        if value not in (None, ""):
            words += [name] if value is FLAG else [name, _text(value)]
    return {"command": shlex.join(words), "python": "\n".join(lines) + "\n"}


def _shared_options(request: Described) -> Options:
    constraints = []
    for name, bound in request.constraints.items():
        sides = zip((">=", "<="), bound, strict=True) if isinstance(bound, tuple) else [("=", bound)]
        constraints += [f"{name}{sign}{_text(value)}" for sign, value in sides if value is not None]
    return [
        ("--calibration", _named(request.calibration)),
        ("--law", request.law),
        *_scenarios(request.scenarios),
        *(("--constrain", text) for text in constraints),
        ("--lifetime-tokens", request.lifetime_tokens or None),
        ("--unique-tokens", request.student_unique_tokens),
        ("--teacher-unique-tokens", request.teacher_unique_tokens),
        ("--flops-rule", request.flops_rule),
        ("--context", request.context),
        ("--vocab", request.vocab),
        ("--aspect-ratio", request.aspect_ratio),
        ("--extrapolate", FLAG if request.extrapolate else None),
    ]


def _shared_arguments(request: Described) -> dict[str, Any]:
    return {
        "student_params": request.student_params,
        "scenarios": _tuple(request.scenarios),
        "law": request.law,
        "constraints": dict(request.constraints) or None,
        "lifetime_tokens": request.lifetime_tokens or None,
        "student_unique_tokens": request.student_unique_tokens,
        "teacher_unique_tokens": request.teacher_unique_tokens,
        "extrapolate": request.extrapolate or None,
    }


def _question(names: list[str], literal: dict[str, str], request: Described) -> list[str]:
    """Imports and the question; FLOPs counted otherwise need the calibration's own architecture."""
    numbers = ("context", "vocab", "aspect_ratio")
    changes = _literals({"rule": request.flops_rule, **{name: getattr(request, name) for name in numbers}})
    head = []
    if changes:
        names.append("Calibration")
        head = ["from dataclasses import replace", ""]
        arguments = ", ".join(f"{name}={value}" for name, value in changes.items())
        base = f"Calibration.load({_file(request.calibration)!r}).architecture"
        literal["architecture"] = f"replace({base}, {arguments})"
    imported = f"from scaling import {', '.join(sorted(names))}"
    body = [f"    {name}={value}," for name, value in literal.items()]
    return [*head, imported, "", "question = Question(", *body, ")"]


def _scenarios(names: list[str]) -> Options:
    return [] if names == list(SCENARIOS) else [("--scenario", name) for name in names]


def _tuple(names: list[str]) -> tuple[str, ...] | None:
    return None if names == list(SCENARIOS) else tuple(names)


def _literals(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in given.items() if value is not None}


def _named(calibration: Fitted) -> str | None:
    name = _file(calibration)
    return None if name == DEFAULT_CALIBRATION else name


def _file(calibration: Fitted) -> str:
    return calibration if isinstance(calibration, str) else UPLOAD


def _listed(values: Sequence[float | str] | str) -> str:
    return values if isinstance(values, str) else ",".join(map(_text, values))


def _number(value: float | str | None) -> float | None:
    return None if value is None else parse_quantity(value, "number")


def _text(value: object) -> str:
    return str(value).removesuffix(".0")
