"""Functions translated to machine code by ``torch.compile``, for each shape once on this kind of machine.

For GPUs, and for losses that go over blocks of logits; what else a CPU runs is in
:mod:`sweeps.model.aot`. What is translated is kept in ``$DISTLAW_CACHE/compiled/<kind of
machine>``, which any number of processes may share. On the device it was made for it computes the same bits
every time, but not those of plain PyTorch: whether a run is compiled is therefore part of what it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from scaling.errors import InputError
from sweeps.data.cache import cache_dir
from sweeps.model.compiler_check import current_options
from sweeps.model.device import device, instructions, processor
from sweeps.model.language_model import LanguageModel

Function = TypeVar("Function", bound=Callable[..., object])

SHAPES = 1000
"""Translations of one function that a process may hold; beyond them it would fall back to plain PyTorch."""


def compiled(function: Function) -> Function:
    """``function``, translated when it is first called with arguments of new shapes.

    The compiler's options are those of :func:`~sweeps.model.compiler_check.compiling_with`. Whoever uses it
    compares what it computes: :mod:`sweeps.train.compiled_loss`.

    Raises:
        InputError: now or at a call, if this machine lacks what it takes.
    """
    check_tools()
    translations()
    import torch._dynamo
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1  # a step has one core; no processes beside it
    torch._inductor.config.cpp_wrapper = device().type == "cpu"  # half the time to compile, less to call
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = SHAPES
    options = current_options()
    translated = torch.compile(function, dynamic=False, options=options or None)

    @wraps(function)
    def call(*arguments: object) -> object:
        try:
            return translated(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise advice(str(error.inner_exception).strip().splitlines()[0]) from error

    return call  # type: ignore[return-value]


class CompiledTrunk:
    """A language model all of which but its head is compiled."""

    def __init__(self, plain: LanguageModel) -> None:
        self.plain, self.model = plain, cast(nn.Module, compiled(plain.model.forward))

    @property
    def head(self) -> Tensor:
        """The output projection ``(vocab, width)``."""
        return self.plain.head


def plain(model: LanguageModel) -> LanguageModel:
    """``model`` as it was before it was compiled, if it was."""
    return model.plain if isinstance(model, CompiledTrunk) else model


def check_tools() -> None:
    """Refuse on a machine that cannot compile."""
    if device().type == "cuda":
        if not find_spec("triton"):
            raise advice("on a GPU it takes triton, which is not installed")
        return
    compiler = os.environ.get("CXX", "clang++" if platform.system() == "Darwin" else "g++")
    if not shutil.which(compiler):
        raise advice(f"it takes a C++ compiler, and {compiler} is not there; install one, or set CXX")


def advice(reason: str) -> InputError:
    """What to say there."""
    return InputError(
        f"training.compile: this machine cannot compile ({reason}). Where that cannot be changed, set "
        "compile: false, for all runs of the law: they then differ in their last digits"
    )


def translations() -> Path:
    """Return where they are kept for this kind of machine: a compiler sees instruction sets and threads."""
    known = f"{torch.__version__} {processor()} {instructions()} {torch.get_num_threads()}"
    folder = cache_dir() / "compiled" / hashlib.sha256(known.encode()).hexdigest()[:16]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    return folder
