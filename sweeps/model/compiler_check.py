"""Comparison of compiled functions with plain PyTorch, and what was found, kept beside the machine code.

A compiler can be wrong without a word. GCC 12 with ``-mtune=generic``, its choice where it does not know
the processor (AMD's Zen 5), drops 31 of the 32 stores of PyTorch's ``transpose_mxn<BFloat16, 32, 32>``
wherever it does not inline that function: it turns the loop that copies the result into ``rep movsq`` and
takes the stores before it for dead. The transposed values are then whatever lay on the stack. ``-fno-dse``
cures it, and so does ``-fno-tree-loop-distribute-patterns``; with vectors of 256 bits the function is not
used. ``benchmarks/compiler_fault.py`` shows the smallest case. So the first call of every compiled function
on a kind of machine is compared.
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
from sweeps.model.device import device, out_of_memory, processor

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
OF_ONE_WEIGHT = 4.0
"""Times the tolerance that a single weight's gradient has, of which few numbers may cancel."""
OF_A_LOSS = 0.2
"""Times the tolerance that a loss has, which is a mean over many tokens."""
OF_ROUNDING = 10.0
"""Times the effect of rounding the inputs that is allowed where a gradient cancels to less than that."""

BY_WEIGHT = "the gradient of "
"""Begins the name of the gradient by a single weight."""

Named = Mapping[str, Tensor]
"""Results of a function by what messages call them."""


def option_levels() -> dict[str, Options]:
    """Return the compiler's options in the order in which they are tried, by name, for this device."""
    return CPU_OPTIONS if device().type == "cpu" else GPU_OPTIONS


_LEVEL: ContextVar[str] = ContextVar("compiler options", default=STANDARD)


@contextmanager
def compiling_with(level: str) -> Iterator[None]:
    """Have functions that are compiled inside the block use the options called ``level``."""
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
    """Result of the comparison of one compiled function with plain PyTorch."""

    options: str | None
    """Name of the options that it is right with; None if there are none."""
    difference: float | None = None
    """Largest relative difference from plain PyTorch; None if there was nothing to compare with."""
    rejected: dict[str, str] = field(default_factory=dict)
    """What was wrong with the options tried before, by name."""
    machine: str = field(default_factory=processor)

    def refusal(self, file: Path) -> InputError:
        """Return the error for a function that no options compile rightly."""
        found = "; ".join(f"with {level} options {reason}" for level, reason in self.rejected.items())
        return InputError(
            f"training.compile: the compiler of this machine translates this step wrongly: {found}. Set "
            f"compile: false for all runs of the law, or install another compiler and remove {file}"
        )


def known_verdict(file: Path) -> Verdict | None:
    """Return what ``file`` says was found, or None if it is not there or damaged."""
    try:
        found = Verdict(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.options is None or found.options in option_levels() else None


def find_options(
    compute: Callable[[str], Named], plain: Callable[[float], Named], precision: torch.dtype, file: Path
) -> Verdict:
    """Return the first options with which ``compute`` agrees with ``plain``, and keep the answer in ``file``.

    Nothing is kept if plain PyTorch's own results are not finite or do not fit into memory; the standard
    options are used then.

    Args:
        compute: gives the compiled function's results with the options of the given name.
        plain: gives plain PyTorch's, its floating inputs multiplied by up to 1 +- the given number.
        precision: of the products of matrices; the tolerance depends on it.
        file: where the answer is kept.
    """
    found = compute(STANDARD)
    try:
        wanted = plain(0.0)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return Verdict(options=STANDARD)
    if not all(torch.isfinite(each).all() for each in wanted.values()):
        return Verdict(options=STANDARD)
    rejected: dict[str, str] = {}
    for level in option_levels():
        found = found if level == STANDARD else compute(level)
        difference, reason = compare(found, wanted, lambda: plain(torch.finfo(precision).eps / 2), precision)
        if reason is None:
            return _keep(Verdict(options=level, difference=difference, rejected=rejected), file)
        rejected[level] = reason
    return _keep(Verdict(options=None, rejected=rejected), file)


def compare(
    found: Named, wanted: Named, rounded: Callable[[], Named], precision: torch.dtype
) -> tuple[float, str | None]:
    """Return the largest relative difference, and what is wrong, or None if all is within the tolerance.

    A difference passes too if rounding the inputs (``rounded``) changes the result as much: where a gradient
    cancels, as that of a student equal to its teacher, no relative tolerance can be kept.
    """
    differences = {name: _relative(found[name], wanted[name]) for name in wanted}
    suspects = [name for name, value in differences.items() if not value <= _allowed(name, wanted, precision)]
    noise = rounded() if suspects else {}
    for name in suspects:
        if not found[name].isfinite().all():
            return math.inf, f"{name} is not finite where plain PyTorch's is"
        limit = OF_ROUNDING * (noise[name] - wanted[name]).double().norm()
        if (found[name] - wanted[name]).double().norm() > limit:
            return differences[name], f"{name} differs from plain PyTorch's by {differences[name]:.3g} of it"
    return max((differences[name] for name in wanted if name not in suspects), default=0.0), None


def loss_and_gradient(loss: Tensor, gradient: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a loss and its gradient, whole and by weight, by the names that messages have for them.

    ``weights`` are the parts of ``gradient`` by the names of the weights.
    """
    parts = {BY_WEIGHT + name: part for name, part in weights.items()}
    return {"the loss": loss, "the gradient": gradient, **parts}


def _relative(found: Tensor, wanted: Tensor) -> float:
    difference, norm = ((each).double().norm().item() for each in (found - wanted, wanted))
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def _allowed(name: str, wanted: Named, precision: torch.dtype) -> float:
    if wanted[name].ndim == 0:
        return TOLERANCE[precision] * OF_A_LOSS
    return TOLERANCE[precision] * (OF_ONE_WEIGHT if name.startswith(BY_WEIGHT) else 1.0)


def nearly(tensor: Tensor, change: float) -> Tensor:
    """Return ``tensor`` with every number multiplied by a random one within 1 +- ``change``."""
    if not change or not tensor.is_floating_point():
        return tensor
    draw = torch.Generator(tensor.device).manual_seed(0)
    factors = torch.empty(tensor.shape, device=tensor.device).uniform_(1 - change, 1 + change, generator=draw)
    return (tensor * factors).to(tensor.dtype)


def _keep(verdict: Verdict, file: Path) -> Verdict:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(asdict(verdict)))
    scratch.replace(file)
    return verdict
