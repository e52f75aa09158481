"""Ahead-of-time compilation of pure functions of tensors to shared libraries, once for a kind of machine.

``torch.compile`` costs each process seconds to find what another has compiled, and each call checks of
guards. Here a function is traced with its gradients and compiled to a shared library (AOTInductor), addressed
by the sources of this package, its key, and the shapes of its arguments. If only the sources have changed,
tracing finds the same operations, and the same library is used. Libraries are kept in
``$DISTLAW_CACHE/compiled/<kind of machine>``, with the verdict of a comparison with uncompiled PyTorch.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sweeps.data.cache import atomic_directory, locked
from sweeps.model.compiling.compiled import check_tools, compile_cache_dir, compile_error
from sweeps.model.compiling.compiler_check import (
    STANDARD,
    NamedTensors,
    Options,
    Verdict,
    find_options,
    option_levels,
    perturbed,
    read_verdict,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule

PureFunction = Callable[..., tuple[Tensor, ...]]
"""Function from tensors to new tensors, without side effects and without other tensors."""


COMPILER_OPTIONS: Options = {
    "compile_threads": 1,  # a step has one core
    "cpp.enable_loop_tail_vec": False,  # the rest of a row of 36 is faster one by one than in vectors of two
}
"""Options of AOTInductor."""


class CompiledLibrary:
    """Function that is compiled and verified at the first call with arguments of new shapes.

    Args:
        function: the function to compile, for CPUs.
        key: everything that it depends on besides its arguments and the sources of this package.
        precision: precision of its matrix products.
        named: names its results, for the comparison.
        noted: called with each library at its first use; may raise to reject it.

    Raises:
        InputError: at a call, if this machine cannot compile, or its compiler is wrong about this function.
    """

    def __init__(
        self,
        function: PureFunction,
        key: str,
        precision: torch.dtype = torch.float32,
        named: Callable[[Sequence[Tensor]], NamedTensors] | None = None,
        noted: Callable[[str, Verdict], None] | None = None,
    ) -> None:
        self.function, self.key, self.precision, self.noted = function, key, precision, noted
        self.named = named or (
            lambda results: {f"result {place}": each for place, each in enumerate(results)}
        )
        self.verdicts: dict[str, Verdict] = {}
        self._known: dict[tuple[object, ...], Callable[[list[Tensor]], list[Tensor]]] = {}

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        given = [argument.contiguous() for argument in arguments]
        kinds = tuple((each.shape, each.dtype) for each in given)
        if kinds not in self._known:
            self._known[kinds] = self._compared(given, str(kinds))
        return self._known[kinds](given)

    def _compared(self, given: Sequence[Tensor], kinds: str) -> Callable[[list[Tensor]], list[Tensor]]:
        """Return the compiled function that agrees with uncompiled PyTorch on such arguments."""
        name = _digest(sources_digest(), self.key, kinds)
        file = compile_cache_dir() / f"{name}.json"
        verdict = read_verdict(file)
        if verdict is None:
            with locked(file):
                verdict = read_verdict(file) or self._compare(given, name, file)
        if verdict.options is None:
            raise verdict.refusal(file)
        label = _digest(self.key, kinds)[:8]
        self.verdicts[label] = verdict
        if self.noted:
            self.noted(label, verdict)
        return _load_library(self._file(given, name, verdict.options))

    def _compare(self, given: Sequence[Tensor], name: str, file: Path) -> Verdict:
        def compute(level: str) -> NamedTensors:
            return self.named(_load_library(self._file(given, name, level))(list(given)))

        def plain(change: float) -> NamedTensors:
            return self.named(
                [each.detach() for each in self.function(*(perturbed(x, change) for x in given))]
            )

        return find_options(compute, plain, self.precision, file)

    def _file(self, given: Sequence[Tensor], name: str, level: str) -> Path:
        number = list(option_levels()).index(level)
        file = compile_cache_dir() / (f"{name}.{number}.so" if number else f"{name}.so")
        if not file.exists():
            check_tools()
            with locked(file):
                if not file.exists():
                    link = file.with_suffix(".new")
                    link.unlink(missing_ok=True)
                    link.symlink_to(_compile_library(self.function, given, level))
                    link.replace(file)
        return file


@cache
def _load_library(file: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    run: Callable[[list[Tensor]], list[Tensor]] = torch._C._aoti.AOTIModelContainerRunnerCpu(str(file), 1).run
    return run


@cache
def sources_digest() -> str:
    """Return a digest of the code of this package."""
    files = sorted(Path(__file__).parents[2].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def trace(function: PureFunction, arguments: Sequence[Tensor]) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """Trace ``function`` on such arguments; return the graph and fake tensors for the arguments."""
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    shapes = FakeTensorMode()
    stand_ins = tuple(shapes.from_tensor(argument.detach()) for argument in arguments)
    with shapes:
        return make_fx(function, decomposition_table=select_decomp_table())(*stand_ins), stand_ins


def _compile_library(function: PureFunction, arguments: Sequence[Tensor], level: str = STANDARD) -> Path:
    """Return the library of ``function`` for such arguments, compiled unless it exists."""
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of torch about torch
        graph, stand_ins = trace(function, arguments)
        lines = graph.print_readable(print_output=False, include_stride=True).splitlines()
        operations = "\n".join(line for line in lines if not line.lstrip().startswith("#"))  # no line numbers
        options = COMPILER_OPTIONS | option_levels()[level]
        folder = compile_cache_dir() / _digest(operations, repr(options))
        with locked(folder):
            if not folder.is_dir():
                try:
                    made = torch._inductor.aot_compile(graph, stand_ins, options=options)
                except (CppCompileError, InvalidCxxCompiler) as error:
                    raise compile_error(str(error).strip().splitlines()[0]) from error
                assert isinstance(made, str)
                with atomic_directory(folder) as scratch:
                    shutil.copyfile(made, scratch / "code.so")
    return folder / "code.so"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
