"""Pure functions of tensors as libraries of machine code: made once on this kind of machine, loaded at once.

``torch.compile`` costs each process seconds to find what another has translated, and each call a look at
what it depends on. Here a function is traced through to its gradients and becomes a shared library
(AOTInductor), found by what it depends on: the sources of this package, its key, and its arguments' shapes.
Where only the sources have changed, tracing finds the same operations, and with them the same library. They
lie in ``$DISTLAW_CACHE/compiled/<kind of machine>``, each with what its comparison with plain PyTorch found.
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

from sweeps.data.cache import locked, published
from sweeps.model.compiled import advice, check_tools, translations
from sweeps.model.compiler_check import (
    STANDARD,
    Named,
    Options,
    Verdict,
    find_options,
    known_verdict,
    nearly,
    option_levels,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule

Pure = Callable[..., tuple[Tensor, ...]]
"""From tensors to new ones; with neither a side effect nor a tensor that is not among its arguments."""


OPTIONS: Options = {
    "compile_threads": 1,  # a step has one core; no processes beside it
    "cpp.enable_loop_tail_vec": False,  # what is left of a row of 36, one by one: vectors of two cost more
}
"""Of the compiler."""


class Library:
    """``function``, translated when it is first called with arguments of new shapes, and compared then.

    Args:
        function: what is translated, for CPUs.
        key: all that it depends on besides its arguments and the sources of this package.
        precision: of its products of matrices.
        named: its results by name, for the comparison.
        noted: is told of each translation when it is first used here, and may refuse it.

    Raises:
        InputError: at a call, if it has to be translated and this machine lacks what it takes, or if its
            compiler is wrong about this function.
    """

    def __init__(
        self,
        function: Pure,
        key: str,
        precision: torch.dtype = torch.float32,
        named: Callable[[Sequence[Tensor]], Named] | None = None,
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
        """Return the translation that agrees with plain PyTorch on such arguments."""
        name = _digest(sources_digest(), self.key, kinds)
        file = translations() / f"{name}.json"
        verdict = known_verdict(file)
        if verdict is None:
            with locked(file):
                verdict = known_verdict(file) or self._compare(given, name, file)
        if verdict.options is None:
            raise verdict.refusal(file)
        label = _digest(self.key, kinds)[:8]
        self.verdicts[label] = verdict
        if self.noted:
            self.noted(label, verdict)
        return _loaded(self._file(given, name, verdict.options))

    def _compare(self, given: Sequence[Tensor], name: str, file: Path) -> Verdict:
        def compute(level: str) -> Named:
            return self.named(_loaded(self._file(given, name, level))(list(given)))

        def plain(change: float) -> Named:
            return self.named([each.detach() for each in self.function(*(nearly(x, change) for x in given))])

        return find_options(compute, plain, self.precision, file)

    def _file(self, given: Sequence[Tensor], name: str, level: str) -> Path:
        number = list(option_levels()).index(level)
        file = translations() / (f"{name}.{number}.so" if number else f"{name}.so")
        if not file.exists():
            check_tools()
            with locked(file):
                if not file.exists():
                    link = file.with_suffix(".new")
                    link.unlink(missing_ok=True)
                    link.symlink_to(_translated(self.function, given, level))
                    link.replace(file)
        return file


@cache
def _loaded(file: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    run: Callable[[list[Tensor]], list[Tensor]] = torch._C._aoti.AOTIModelContainerRunnerCpu(str(file), 1).run
    return run


@cache
def sources_digest() -> str:
    """A digest of this package's code, whatever of it a function uses."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def traced(function: Pure, arguments: Sequence[Tensor]) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """What ``function`` does with such arguments, operation by operation, and stand-ins for these."""
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    shapes = FakeTensorMode()
    stand_ins = tuple(shapes.from_tensor(argument.detach()) for argument in arguments)
    with shapes:
        return make_fx(function, decomposition_table=select_decomp_table())(*stand_ins), stand_ins


def _translated(function: Pure, arguments: Sequence[Tensor], level: str = STANDARD) -> Path:
    """Return the library of what ``function`` does with such arguments; made, unless there is one."""
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of torch
        graph, stand_ins = traced(function, arguments)
        lines = graph.print_readable(print_output=False, include_stride=True).splitlines()
        operations = "\n".join(line for line in lines if not line.lstrip().startswith("#"))  # no line numbers
        options = OPTIONS | option_levels()[level]
        folder = translations() / _digest(operations, repr(options))
        with locked(folder):
            if not folder.is_dir():
                try:
                    made = torch._inductor.aot_compile(graph, stand_ins, options=options)
                except (CppCompileError, InvalidCxxCompiler) as error:
                    raise advice(str(error).strip().splitlines()[0]) from error
                assert isinstance(made, str)
                with published(folder) as scratch:
                    shutil.copyfile(made, scratch / "code.so")
    return folder / "code.so"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
