"""Does the compiler of this machine translate every method rightly?

    python benchmarks/compiler_check.py [--params 13k 107k] [--rows 8 16] [--precision fp32 bf16]
        [--methods supervised forward-kl ...] [--march x86-64-v4]

One optimizer step on random tokens for each combination, V = 512, 128 tokens a sequence, one thread; from a
teacher of the same shape and another seed. A row says with which options compiled loss and gradient agree
with plain PyTorch's, the largest relative difference, and what was wrong with the options before.
``--march`` has the compiler take the processor for another: GCC 12 is wrong for ``x86-64-v4``.
Machine code is kept in ``$DISTLAW_CACHE``; point that at an empty folder to compare everything anew.
"""

from __future__ import annotations

import argparse
import os
import time

import torch

from scaling.errors import InputError
from scaling.units import parse_quantity
from sweeps.dag.ladder import shape_for
from sweeps.distill.targets import Online
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import keep_freed_memory, processor
from sweeps.model.frozen import FrozenBody
from sweeps.spec.method.method import Method, named_methods
from sweeps.spec.method.registry import divergences
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

CONTEXT, VOCAB = 128, 512


def method_of(name: str) -> Method | None:
    """Return the method called ``name``, a divergence or a named method; None for supervised training."""
    if name == "supervised":
        return None
    return Method(divergence=name) if name in divergences() else Method(use=name)


def methods() -> list[str]:
    """Return what can be compared: methods that follow one teacher and learn from the data."""
    followed = [
        name
        for name in named_methods()
        if not (found := Method(use=name)).neighbours and not found.delta and found.source.by == "data"
    ]
    named_ones = divergences()
    return ["supervised", *named_ones, *(name for name in followed if name not in named_ones)]


def compare(params: float, rows: int, precision: str, name: str) -> str:
    """Return a line about one step."""
    shape = shape_for(params, vocab=VOCAB, context=CONTEXT, aspect_ratio=32)
    blocks = torch.randint(VOCAB, (rows, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    training = Training(batch_tokens=rows * CONTEXT, precision=precision, compile=True)
    run = Run(recipe=RunRecipe(shape=shape, steps=1000, training=training, seed=0, method=method_of(name)))
    target, began = None, time.perf_counter()
    if run.recipe.method:
        teacher = Decoder(shape)
        teacher.initialize(1)
        teacher.precision = PRECISIONS[precision]
        target = Online(FrozenBody(teacher.requires_grad_(False)), returns_log_probs=True)
    try:
        read = target.rows(blocks[:, :-1], torch.arange(rows)) if target else None
        run.step(blocks, target, read)
    except InputError as error:
        return f"refused: {error}"
    seconds = time.perf_counter() - began
    found = [
        f"{each['options']}, off by {each['difference']:.1e}"
        + "".join(f" ({level}: {reason})" for level, reason in each["rejected"].items())
        for each in run.used_options.provenance()
    ]
    return f"{'; '.join(found)}  [{seconds:.0f} s]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", nargs="*", default=["13k", "107k"])
    parser.add_argument("--rows", nargs="*", type=int, default=[8, 16])
    parser.add_argument("--precision", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--methods", nargs="*", default=methods())
    parser.add_argument("--march")
    options = parser.parse_args()
    if options.march:
        os.environ["TORCHINDUCTOR_CPP_MARCH"] = options.march
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{processor()}; torch {torch.__version__}; march {options.march or 'native'}", flush=True)
    for name in options.methods:
        for params in options.params:
            for rows in options.rows:
                for precision in options.precision:
                    found = compare(parse_quantity(params, "--params"), rows, precision, name)
                    print(f"{name:22s} {params:>5s} {rows:3d} x {CONTEXT} {precision}  {found}", flush=True)


if __name__ == "__main__":
    main()
