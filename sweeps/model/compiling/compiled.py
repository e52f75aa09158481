"""Functions compiled with ``torch.compile``, once for each shape and kind of machine.

They are used on GPUs, and for losses over chunks of logits; :mod:`sweeps.model.compiling.aot` compiles
everything else on a CPU. The code is kept in ``$DISTLAW_CACHE/compiled/<kind of machine>``, shared by any
number of processes. It computes the same bits every time on that kind of machine, but not those of
uncompiled PyTorch, so that ``training.compile`` is part of a run's identity.
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
from sweeps.model.compiling.compiler_check import current_options
from sweeps.model.decoder import Decoder
from sweeps.model.device import device, instruction_sets, processor
from sweeps.model.language_model import LanguageModel

Function = TypeVar("Function", bound=Callable[..., object])

MAX_COMPILED_SHAPES = 1000
"""Compiled variants of one function in a process, above which torch.compile would stop compiling."""


def compile_function(function: Function) -> Function:
    """Return ``function``, compiled at the first call with arguments of new shapes.

    The options are those of :func:`~sweeps.model.compiling.compiler_check.compiling_with`. Callers verify the
    results: :mod:`sweeps.train.compiled_loss`.

    Raises:
        InputError: now or at a call, if this machine cannot compile.
    """
    check_tools()
    compile_cache_dir()
    import torch._dynamo
    import torch._inductor.config

    if device().type == "cpu":
        torch._inductor.config.compile_threads = 1  # a step has one core
    torch._inductor.config.cpp_wrapper = device().type == "cpu"  # half the time to compile, less to call
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = (
        MAX_COMPILED_SHAPES
    )
    options = current_options()
    translated = torch.compile(function, dynamic=False, options=options or None)

    @wraps(function)
    def call(*arguments: object) -> object:
        try:
            return translated(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise compile_error(str(error.inner_exception).strip().splitlines()[0]) from error

    return call  # type: ignore[return-value]


class CompiledBody:
    """Language model with a compiled body; its head is not compiled."""

    def __init__(self, uncompiled: LanguageModel) -> None:
        self.plain, self.model = uncompiled, cast(nn.Module, compile_function(uncompiled.model.forward))

    @property
    def head(self) -> Tensor:
        """Output projection ``(vocab, width)``."""
        return self.plain.head


def compile_blocks(model: Decoder) -> None:
    """Compile each block of a sharded model for GPUs, in place: FSDP's hooks lie between them.

    On a CPU they are left as they are: what compiles there is verified with whole gradients, which no process
    has. Losses then differ from compiled ones by rounding.
    """
    if device().type == "cuda":
        for block in model.model.layers:
            block.forward = compile_function(block.forward)


def uncompiled(model: LanguageModel) -> LanguageModel:
    """Return ``model`` before compilation."""
    return model.plain if isinstance(model, CompiledBody) else model


def check_tools() -> None:
    """Raise InputError on a machine that cannot compile."""
    if device().type == "cuda":
        if not find_spec("triton"):
            raise compile_error("compiling for a GPU needs triton, which is not installed")
        return
    compiler = os.environ.get("CXX", "clang++" if platform.system() == "Darwin" else "g++")
    if not shutil.which(compiler):
        raise compile_error(
            f"a C++ compiler is needed, and {compiler} is not installed; install one, or set CXX"
        )


def compile_error(reason: str) -> InputError:
    """Return the error for a machine that cannot compile."""
    return InputError(
        f"training.compile: this machine cannot compile ({reason}). If that cannot be changed, set "
        "compile: false for all runs of the law; the last digits of losses then differ"
    )


def compile_cache_dir() -> Path:
    """Return the directory of compiled code for this processor, instruction sets and number of threads."""
    known = f"{torch.__version__} {processor()} {instruction_sets()} {torch.get_num_threads()}"
    folder = cache_dir() / "compiled" / hashlib.sha256(known.encode()).hexdigest()[:16]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    return folder
