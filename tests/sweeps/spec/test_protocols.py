"""The paper's protocols by name."""

from __future__ import annotations

from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep

FIXED = {"params": ["7k", "13k"], "tokens_per_param": [20]}
PROFILES = {"params": ["3k", "5k", "7k"], "flops": [1e10, 3e10]}


def sweep(protocol: str, teachers: dict[str, Any], students: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "p",
        "protocol": protocol,
        "teachers": [teachers],
        "students": [students],
        "allow_weak_teachers": True,
    }


@pytest.mark.parametrize(
    ("protocol", "teachers", "students"),
    [
        ("fixed-m-teachers-isoflop-students", FIXED, PROFILES),
        ("isoflop-teachers-fixed-m-students", PROFILES, FIXED),
        ("fixed-m", FIXED, FIXED | {"tokens_per_param": [20, 40]}),
    ],
)
def test_a_protocol_accepts_its_own_grids(
    protocol: str, teachers: dict[str, Any], students: dict[str, Any]
) -> None:
    assert parse_sweep(sweep(protocol, teachers, students)).protocol == protocol


@pytest.mark.parametrize(
    ("protocol", "teachers", "students", "message"),
    [
        ("fixed-m", PROFILES, FIXED, r"teachers\[0\] must give its lengths as tokens_per_param"),
        ("fixed-m", FIXED | {"tokens_per_param": [20, 40]}, FIXED, "must have one tokens_per_param, not 2"),
        ("isoflop-teachers-fixed-m-students", FIXED, FIXED, r"teachers\[0\] must give its lengths as flops"),
        (
            "fixed-m-teachers-isoflop-students",
            FIXED,
            PROFILES | {"params": ["3k", "7k"]},
            r"students\[0\] needs at least 3 sizes for its IsoFLOP profiles, not 2",
        ),
        ("chinchilla", FIXED, FIXED, "protocol: input should be 'fixed-m-teachers-isoflop-students'"),
    ],
)
def test_a_protocol_refuses_others(
    protocol: str, teachers: dict[str, Any], students: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        parse_sweep(sweep(protocol, teachers, students))


def test_a_protocol_needs_students() -> None:
    with pytest.raises(InputError, match="protocol fixed-m: needs 'teachers' and 'students'"):
        parse_sweep({"name": "p", "protocol": "fixed-m", "supervised": [FIXED]})


def test_lengths_are_what_the_protocol_says(text_file: Any, own_cache: Any) -> None:
    rules = {
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32},
        "training": {"batch_tokens": 32},
    }
    spec = sweep("fixed-m-teachers-isoflop-students", FIXED | {"tokens_per_param": [10]}, PROFILES)
    steps = dag_of(parse_sweep(spec | rules)).steps
    for step in steps:
        if step.teacher:
            budget = min((1e10, 3e10), key=lambda flops: abs(flops - step.student_flops))
            assert step.student_flops == pytest.approx(budget, rel=2e-3)
        else:
            assert step.tokens / step.shape.params == pytest.approx(10, rel=2e-3)
