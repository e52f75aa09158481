"""Compiler options that a run has used, and resumes with."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.model.compiling.compiler_check import Verdict


class UsedOptions:
    """Options of each compiled function of a run, by a digest of what the function is."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}

    def note(self, label: str, verdict: Verdict) -> None:
        """Record the options of a function.

        Raises:
            InputError: if an earlier process of this run used it with other options.
        """
        assert verdict.options is not None
        before = self.names.setdefault(label, verdict.options)
        if before != verdict.options:
            raise InputError(
                f"training.compile: this run started with the {before} options of the compiler, but only the "
                f"{verdict.options} options are correct on this machine, so it cannot be resumed exactly. "
                "Resume it on a machine of the first kind, or remove its checkpoints"
            )
        self.verdicts[label] = verdict

    def state(self) -> Tensor:
        """Return the state for :meth:`load_state`, as bytes ``(n,)``."""
        return torch.tensor(list(json.dumps(self.names).encode()), dtype=torch.uint8)

    def load_state(self, state: Tensor) -> None:
        """Restore the options that this run has used so far."""
        self.names = json.loads(bytes(state.tolist()))

    def provenance(self) -> list[dict[str, Any]]:
        """Return the options for a result's provenance, and their differences from uncompiled PyTorch."""
        known = [(label, name, self.verdicts.get(label)) for label, name in sorted(self.names.items())]
        return [
            {"function": label, "options": name}
            | ({"difference": found.difference, "rejected": found.rejected} if found else {})
            for label, name, found in known
        ]
