"""Parts of methods with errors in them: refused with the plan, or named with the line that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import sweeps
from scaling.errors import InputError
from sweeps.distill.metrics import named_values
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import STANDARD_METRICS, load_object, version_of

MODULE = """
from sweeps.methods import Divergence, Hook, Metric

class Short(Divergence):
    def per_token(self, log_p):
        return log_p.sum(-1)

class Raises(Divergence):
    def per_token(self, log_p, log_q, labels):
        return {}["temperature"]

class Mean(Divergence):
    def per_token(self, log_p, log_q, labels):
        return -log_q.mean()

class NotANumber(Divergence):
    def per_token(self, log_p, log_q, labels):
        return log_q.sum(-1) * float("nan")

class Counter(Hook):
    def after_step(self, run, state):
        state["steps"] = 3

class Late(Metric):
    def measure(self, evaluation):
        return {"ratio": 1 / 0}

class Loss(Metric):
    def measure(self, evaluation):
        return {"loss": 1.0}
"""


@pytest.fixture
def spec(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A teacher and a student of 500 steps of one block, with a module of faulty parts on the path."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "faulty.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield {
        "name": "faulty",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 16, "heldout": 0.1},
        "training": {"batch_tokens": 16, "warmup_tokens": 800},
        "teachers": [{"params": ["3k"], "tokens": ["8k"]}],
        "students": [{"params": ["3k"], "tokens": ["8k"]}],
    }
    sys.modules.pop("faulty", None)
    for cached in (load_object, version_of, parts_of):
        cached.cache_clear()


def test_a_wrong_signature_is_refused_before_anything_is_trained(spec: dict[str, Any]) -> None:
    method = {"divergence": {"use": "faulty:Short"}}
    message = (
        r"methods\[0\].divergence: use: faulty:Short: per_token\(self, log_p\) cannot be called as "
        r"per_token\(log_p, log_q, labels\): too many positional arguments"
    )
    with pytest.raises(InputError, match=message):
        sweeps.load(spec | {"methods": [method]})


def test_a_changed_module_is_imported_anew_by_the_next_spec(spec: dict[str, Any], tmp_path: Path) -> None:
    """The edit of a notebook's author, whose kernel goes on."""
    method = {"divergence": {"use": "faulty:Mean"}}
    before = sweeps.load(spec | {"methods": [method]})
    file = tmp_path / "modules" / "faulty.py"
    file.write_text(MODULE.replace("log_q.mean()", "log_q.mean(-1) * 2"))
    after = sweeps.load(spec | {"methods": [method]})
    assert before.dag.steps[0].id == after.dag.steps[0].id  # the teacher
    assert before.dag.steps[1].id != after.dag.steps[1].id
    changed = parts_of(after.spec.methods[0]).divergence
    assert changed.per_token(torch.zeros(3, 4), torch.ones(3, 4), torch.zeros(3)).tolist() == [-2.0] * 3


def test_errors_in_parts_name_the_part_or_its_line_and_concern_no_other_method(
    spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    """All students share their teacher's passes in one cohort."""
    found = {
        "Raises": "KeyError: 'temperature' (faulty.py:10)",
        "Mean": "divergence: Mean.per_token returned (); it must be one loss a row, (16,)",
        "NotANumber": "look for the cause in the parts of NotANumber, or lower learning_rate",
        "Counter": "Counter left state['steps'] = 3; a state holds tensors",
        "Late": "ZeroDivisionError: division by zero (faulty.py:26)",
    }
    slots = {"Counter": "hooks", "Late": "metrics"}
    methods = [
        {slots[name]: [{"use": f"faulty:{name}"}]}
        if name in slots
        else {"divergence": {"use": f"faulty:{name}"}}
        for name in found
    ]
    loaded = sweeps.load(spec | {"methods": [*methods, {}]})
    state = loaded.run(tmp_path / "store", executor="inline")
    names = {step.id: step.method.name for step in loaded.dag.steps if step.method}
    for name, reason in found.items():
        (told,) = (state.failed[step] for step, method in names.items() if name in method)
        assert reason in told
    table = sweeps.results(tmp_path / "store").set_index("method")
    assert table["status"]["forward-kl"] == "done"


def test_a_metric_does_not_take_the_place_of_a_column(spec: dict[str, Any]) -> None:
    method = Method.model_validate({"metrics": [{"use": "faulty:Loss"}]})
    (own,) = parts_of(method).metrics[len(STANDARD_METRICS) :]
    with pytest.raises(InputError, match="metrics: Loss: loss is a column of every runs table"):
        dict(named_values(own, {"loss": 1.0}))
