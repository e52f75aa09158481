"""What a teacher writes down is planned and billed once, in however many epochs it is read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from sweeps.dag.expand import expand
from sweeps.dag.kept_text import with_kept_tokens
from sweeps.dag.step import Step
from sweeps.data.text_size import TextSize
from sweeps.estimate.cost import disk
from sweeps.resolve import resolve
from sweeps.spec.spec import parse_sweep

METHODS = {
    "cache": {"logits": "top-k"},
    "generate": "seqkd",
    "cache-features": {
        "auxiliary_losses": [
            {"use": "sweeps.methods.feature_targets:FeatureTargets", "statistics_steps": 3, "cache": "bf16"}
        ],
        "token_loss_weight": 0,
    },
}


@pytest.mark.parametrize("kind", METHODS)
def test_no_token_is_kept_twice_and_ids_do_not_depend_on_it(small_spec: dict[str, Any], kind: str) -> None:
    small_spec |= {"teachers": [{"params": ["7k"], "tokens": ["32k"]}], "methods": [METHODS[kind]]}
    small_spec["corpus"]["halves"] = True
    sweep = parse_sweep(small_spec)
    dag = expand(resolved := resolve(sweep))
    long = next(step for step in dag.steps if step.kind == kind)
    for tokens, kept in ((1e9, long.tokens), (4_000, 1_984), (math.inf, long.tokens)):
        size = TextSize(train_tokens=tokens, heldout_tokens=100, estimated=True)
        counted = with_kept_tokens(dag, replace(resolved.text, estimated=size))
        step = next(step for step in counted.steps if step.kind == kind)
        assert step.tokens == kept  # of one half, in whole blocks of 32
        assert step.flops_to_spend == pytest.approx(long.flops_to_spend * kept / long.tokens)
        assert disk(counted) == pytest.approx(disk(dag) * kept / long.tokens)
        assert [each.id for each in counted.steps] == [each.id for each in dag.steps]
        student = counted.steps[-1]
        assert step in (student.logits, student.texts, *student.features)
        assert student.flops == dag.steps[-1].flops  # a law's
        assert Step.from_json(json.loads(json.dumps(student.as_json()))) == student
