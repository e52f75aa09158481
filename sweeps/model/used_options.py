"""Options of the compiler that a run has been computed with: it goes on with the same, or not at all."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.model.compiler_check import Verdict


class UsedOptions:
    """Options of each compiled function of a run, by a digest of what the function is."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}

    def note(self, label: str, verdict: Verdict) -> None:
        """Add a function that is used from now on.

        Raises:
            InputError: if an earlier process of this run used it with other options.
        """
        assert verdict.options is not None
        before = self.names.setdefault(label, verdict.options)
        if before != verdict.options:
            raise InputError(
                f"training.compile: this run began with the compiler's {before} options, and only its "
                f"{verdict.options} ones are right on this machine: it could not go on in the same bits. Let "
                "it go on on a machine of the kind it began on, or remove its checkpoints"
            )
        self.verdicts[label] = verdict

    def state(self) -> Tensor:
        """Return what :meth:`load_state` needs, as bytes ``(n,)``."""
        return torch.tensor(list(json.dumps(self.names).encode()), dtype=torch.uint8)

    def load_state(self, state: Tensor) -> None:
        """Set the options that this run has been computed with so far."""
        self.names = json.loads(bytes(state.tolist()))

    def provenance(self) -> list[dict[str, Any]]:
        """Return what a result says of them: options, and how they compare with plain PyTorch."""
        known = [(label, name, self.verdicts.get(label)) for label, name in sorted(self.names.items())]
        return [
            {"function": label, "options": name}
            | ({"difference": found.difference, "rejected": found.rejected} if found else {})
            for label, name, found in known
        ]
