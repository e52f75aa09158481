"""Ids of steps are a promise: those of 0.1.0 are found again, whatever fields are called today."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.dag.expand import expand
from sweeps.resolve import resolve
from sweeps.spec.spec import load_sweep, presets

PINNED = json.loads(Path(__file__).with_name("preset_ids.json").read_text())


def digest(values: list[str]) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:16]


@pytest.mark.parametrize("preset", sorted(PINNED))
def test_ids_and_settings_of_every_preset(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint of a text needs no text, but for a vocabulary that another corpus trains."""
    trained = SimpleNamespace(sha256="0" * 64, end_of_text="<|endoftext|>", size=512)
    monkeypatch.setattr("sweeps.data.corpus.tokens_of", lambda corpus: SimpleNamespace(tokenizer_files=None))
    monkeypatch.setattr("sweeps.data.corpus.ExternalTokenizer.read", lambda *place: trained)
    steps = expand(resolve(load_sweep(preset))).steps
    found = {
        "steps": len(steps),
        "first": steps[0].id,
        "last": steps[-1].id,
        "ids": digest(sorted(step.id for step in steps)),
        "settings": sorted({step.setting for step in steps}),
        "kinds": sorted({str(step.kind) for step in steps}),
    }
    assert found == PINNED[preset]


def test_every_preset_is_pinned() -> None:
    assert set(PINNED) == set(presets())
