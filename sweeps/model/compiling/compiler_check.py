"""Verification of compiled functions against uncompiled PyTorch; verdicts are kept beside the code.

A compiler can be wrong without an error. GCC 12 with ``-mtune=generic``, its default for
unknown processors (AMD's Zen 5), drops 31 of the 32 stores of PyTorch's ``transpose_mxn<BFloat16, 32, 32>``
wherever it does not inline that function: it turns the loop that copies the result into ``rep movsq`` and
treats the stores before it as dead. The transposed values are then those of the stack. ``-fno-dse``
avoids it, and so does ``-fno-tree-loop-distribute-patterns``; with vectors of 256 bits the function is not
used. ``benchmarks/compiler_fault.py`` has the smallest case. So the first call of every compiled function
on a kind of machine is verified.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.model.device import device, is_out_of_memory, processor

Options = dict[str, str | int | bool | Callable[..., Any]]
"""Options of PyTorch's compiler, by name."""

STANDARD = "standard"
CPU_OPTIONS: dict[str, Options] = {STANDARD: {}, "256-bit vectors": {"cpp.simdlen": 256}}
GPU_OPTIONS: dict[str, Options] = {
    STANDARD: {},
    "unfused": {"epilogue_fusion": False, "emulate_precision_casts": True},
}
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Largest relative difference (2-norm) of a compiled gradient from plain PyTorch's, by precision.

Measured differences are 2e-6 and .016 at most (``benchmarks/compiler_check.py``), for single weights .06."""
WEIGHT_TOLERANCE_FACTOR = 4.0
"""Factor of the tolerance for the gradient of a single weight, where few numbers may cancel."""
LOSS_TOLERANCE_FACTOR = 0.2
"""Factor of the tolerance for a loss, which is a mean over many tokens."""
ROUNDING_FACTOR = 10.0
"""Allowed difference in units of the effect of rounding the inputs, where a gradient cancels."""

WEIGHT_GRADIENT_PREFIX = "the gradient of "
"""Prefix of the name of the gradient of a single weight."""

NamedTensors = Mapping[str, Tensor]
"""Results of a function by their names in messages."""


def option_levels() -> dict[str, Options]:
    """Return the compiler options for this device by name, in the order in which they are tried."""
    return CPU_OPTIONS if device().type == "cpu" else GPU_OPTIONS


_LEVEL: ContextVar[str] = ContextVar("compiler options", default=STANDARD)


@contextmanager
def compiling_with(level: str) -> Iterator[None]:
    """Compile functions inside the block with the options named ``level``."""
    token = _LEVEL.set(level)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def current_options() -> Options:
    """Return the options of the innermost :func:`compiling_with`."""
    return option_levels()[_LEVEL.get()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Result of the comparison of one compiled function with uncompiled PyTorch."""

    options: str | None
    """Name of the first options that give correct results; None if there are none."""
    difference: float | None = None
    """Largest relative difference from uncompiled PyTorch; None if there was nothing to compare with."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Errors found with the options tried before, by name."""
    machine: str = field(default_factory=processor)

    def refusal(self, file: Path) -> InputError:
        """Return the error for a function that no options compile correctly."""
        found = "; ".join(f"with {level} options {reason}" for level, reason in self.rejected.items())
        return InputError(
            f"training.compile: the compiler of this machine miscompiles this step: {found}. Set "
            f"compile: false for all runs of the law, or install another compiler and remove {file}"
        )


def read_verdict(file: Path) -> Verdict | None:
    """Read a verdict from ``file``; None if it is missing or damaged."""
    try:
        found = Verdict(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.options is None or found.options in option_levels() else None


def find_options(
    compute: Callable[[str], NamedTensors],
    plain: Callable[[float], NamedTensors],
    precision: torch.dtype,
    file: Path,
) -> Verdict:
    """Return the first options with which ``compute`` agrees with ``plain``, and write the verdict to
    ``file``.

    If the results of uncompiled PyTorch are not finite or do not fit into memory, the standard options are
    used and nothing is written.

    Args:
        compute: returns the compiled results with the options of the given name.
        plain: returns those of uncompiled PyTorch, with inputs multiplied by up to 1 +- the given number.
        precision: precision of the matrix products, which determines the tolerance.
        file: path of the verdict.
    """
    found = compute(STANDARD)
    try:
        wanted = plain(0.0)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Verdict(options=STANDARD)
    if not all(torch.isfinite(each).all() for each in wanted.values()):
        return Verdict(options=STANDARD)
    rejected: dict[str, str] = {}
    for level in option_levels():
        found = found if level == STANDARD else compute(level)
        difference, reason = compare_results(
            found, wanted, lambda: plain(torch.finfo(precision).eps / 2), precision
        )
        if reason is None:
            return _write_verdict(Verdict(options=level, difference=difference, rejected=rejected), file)
        rejected[level] = reason
    return _write_verdict(Verdict(options=None, rejected=rejected), file)


def compare_results(
    found: NamedTensors, wanted: NamedTensors, rounded: Callable[[], NamedTensors], precision: torch.dtype
) -> tuple[float, str | None]:
    """Return the largest relative difference, and a description of one above the tolerance, or None.

    A difference is accepted if rounding the inputs (``rounded``) changes the result as much: where a gradient
    cancels, as that of a student equal to its teacher, no relative tolerance applies.
    """
    differences = {name: _relative_difference(found[name], wanted[name]) for name in wanted}
    suspects = [
        name for name, value in differences.items() if not value <= _tolerance_of(name, wanted, precision)
    ]
    noise = rounded() if suspects else {}
    for name in suspects:
        if not found[name].isfinite().all():
            return math.inf, f"{name} is not finite where plain PyTorch's is"
        limit = ROUNDING_FACTOR * (noise[name] - wanted[name]).double().norm()
        if (found[name] - wanted[name]).double().norm() > limit:
            return differences[name], f"{name} differs from plain PyTorch's by {differences[name]:.3g} of it"
    return max((differences[name] for name in wanted if name not in suspects), default=0.0), None


def loss_and_gradient(loss: Tensor, gradient: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a loss and its gradient, whole and by weight, by their names in messages.

    ``weights`` are the parts of ``gradient`` by the names of the weights.
    """
    parts = {WEIGHT_GRADIENT_PREFIX + name: part for name, part in weights.items()}
    return {"the loss": loss, "the gradient": gradient, **parts}


def _relative_difference(found: Tensor, wanted: Tensor) -> float:
    difference, norm = ((each).double().norm().item() for each in (found - wanted, wanted))
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def _tolerance_of(name: str, wanted: NamedTensors, precision: torch.dtype) -> float:
    if wanted[name].ndim == 0:
        return TOLERANCE[precision] * LOSS_TOLERANCE_FACTOR
    return TOLERANCE[precision] * (
        WEIGHT_TOLERANCE_FACTOR if name.startswith(WEIGHT_GRADIENT_PREFIX) else 1.0
    )


def perturbed(tensor: Tensor, change: float) -> Tensor:
    """Return ``tensor`` with every number multiplied by a random one within 1 +- ``change``."""
    if not change or not tensor.is_floating_point():
        return tensor
    draw = torch.Generator(tensor.device).manual_seed(0)
    factors = torch.empty(tensor.shape, device=tensor.device).uniform_(1 - change, 1 + change, generator=draw)
    return (tensor * factors).to(tensor.dtype)


def _write_verdict(verdict: Verdict, file: Path) -> Verdict:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(asdict(verdict)))
    scratch.replace(file)
    return verdict
