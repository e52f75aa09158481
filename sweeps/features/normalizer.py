"""Normalization that is estimated during the first updates of a run, and then frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.features.moments import FeatureMoments
from sweeps.features.normalization import MODES, Mode, Normalization, fit_normalization


class Processes(Protocol):
    """Processes that see different positions, such as :class:`sweeps.model.distributed.World`."""

    @property
    def leads(self) -> bool:
        """True in one process."""

    def total(self, share: Tensor) -> Tensor:
        """Return the sum of ``share`` over all processes."""


class FeatureNormalizer:
    """Moments of a teacher's features, and the normalization that was last fitted to them.

    Refitting turns the principal components, and with them the targets: let a student's body train only once
    the normalizer is frozen. Defaults are those of NVIDIA's TAO: refits every 100 updates until update 3,000.

    Args:
        mode: One of :data:`sweeps.features.normalization.MODES`.
        width: Channels.
        refresh_every: Updates between two fits; the first fit is at this update.
        freeze_after: Update with the last fit; later ones change nothing.
        floor: See :func:`sweeps.features.normalization.fit_normalization`.
        processes: Those whose features are added up; one process by default. All hold the same moments, and
            the normalization that the leading one has fitted.

    Raises:
        InputError: if an option makes no sense.
    """

    def __init__(
        self,
        mode: Mode,
        width: int,
        refresh_every: int = 100,
        freeze_after: int = 3000,
        floor: float | None = None,
        processes: Processes | None = None,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"normalization: {mode!r} is none of {', '.join(MODES)}")
        if not 1 <= refresh_every <= freeze_after:
            raise InputError(
                f"refresh_every: {refresh_every} updates; expected 1 to freeze_after, {freeze_after}"
            )
        self.mode, self.floor, self.processes = mode, floor, processes
        self.refresh_every, self.freeze_after = refresh_every, freeze_after
        self.updates = 0
        self.moments = FeatureMoments.empty(width)
        self._fitted: Normalization | None = None

    @property
    def frozen(self) -> bool:
        """True once the normalization changes no more."""
        return self.updates >= self.freeze_after

    @property
    def ready(self) -> bool:
        """True once there is a normalization."""
        return self._fitted is not None

    @property
    def normalization(self) -> Normalization:
        """The normalization that was fitted last.

        Raises:
            InputError: before the first fit.
        """
        if self._fitted is None:
            raise InputError(
                f"normalization: nothing is fitted before update {self.refresh_every}, and there were "
                f"{self.updates}"
            )
        return self._fitted

    def update(self, features: Tensor, mask: Tensor | None = None) -> bool:
        """Add a batch of features ``(..., C)``, and return True if the normalization was fitted anew.

        Args:
            features: Of this process.
            mask: True where a position counts, as in :func:`sweeps.features.positions.counted_positions`.
        """
        if self.frozen:
            return False
        batch = FeatureMoments.of(features, mask)
        self.moments = self.moments.to(features.device).merged(self._reduced(batch))
        self.updates += 1
        if self.updates % self.refresh_every and not self.frozen:
            return False
        self._fitted = self._led(fit_normalization(self.moments, self.mode, self.floor))
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that later updates depend on, as tensors by name."""
        state = {"updates": torch.tensor(self.updates)}
        state |= {f"moments.{name}": tensor for name, tensor in self.moments.state_dict().items()}
        fitted = self._fitted.state_dict() if self._fitted else {}
        return state | {f"normalization.{name}": tensor for name, tensor in fitted.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            InputError: if it is of another mode or width.
        """
        moments = FeatureMoments.from_state_dict(_under("moments.", state))
        saved = _under("normalization.", state)
        fitted = Normalization.from_state_dict(saved) if saved else None
        if moments.width != self.moments.width:
            raise InputError(
                f"normalization: the saved one has {moments.width} channels, not {self.moments.width}"
            )
        if fitted and fitted.mode != self.mode:
            raise InputError(f"normalization: the saved one is {fitted.mode}, not {self.mode}")
        self.updates, self.moments, self._fitted = int(state["updates"]), moments, fitted

    def _reduced(self, moments: FeatureMoments) -> FeatureMoments:
        return moments.reduced(self.processes.total) if self.processes else moments

    def _led(self, fitted: Normalization) -> Normalization:
        """Return the leading process's normalization: another machine may round eigenvectors otherwise."""
        if self.processes is None:
            return fitted
        own = fitted.state_dict()
        given = own if self.processes.leads else {k: torch.zeros_like(v) for k, v in own.items()}
        return Normalization.from_state_dict({k: self.processes.total(v.clone()) for k, v in given.items()})


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
