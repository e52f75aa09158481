"""The smallest case in which GCC translates PyTorch's vectors wrongly.

    python benchmarks/compiler_fault.py

One call of ``transpose_mxn<BFloat16, 32, 32>`` in a function of its own, for processors with AVX-512, by the
compiler that ``CXX`` names: how many of 1,024 numbers are wrong, for several tunings and with either remedy.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void transposed(const at::BFloat16* in, at::BFloat16* out) {
  transpose_mxn<at::BFloat16, 32, 32, false>(in, 192, out, 32);
}
"""
TUNINGS = (
    "-march=native",
    "-march=x86-64-v4",
    "-march=x86-64-v4 -fno-dse",
    "-march=x86-64-v4 -fno-tree-loop-distribute-patterns",
    "-march=x86-64-v4 -mtune=znver3",
    "-march=skylake-avx512",
)


def wrong_numbers(flags: str, folder: Path) -> int:
    """Return how many of 32 x 32 numbers are wrong after their transposition."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
    from torch._inductor.cpu_vec_isa import VecAVX512

    (folder / "fault.cpp").write_text(SOURCE)
    usual = CppTorchOptions(vec_isa=VecAVX512())
    built = CppBuilder("fault", str(folder / "fault.cpp"), usual, output_dir=str(folder))
    command = built.get_command_line().replace("-march=native", flags).split()
    subprocess.run(command, check=True, capture_output=True)
    rows, out = torch.randn(32, 192).bfloat16(), torch.full((32, 32), 7.0).bfloat16()
    found = ctypes.CDLL(built.get_target_file_path())
    found.transposed(ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(out.data_ptr()))
    return int((out != rows[:, :32].T).sum())


def main() -> None:
    compiler = os.environ.get("CXX", "g++")
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True)
    print(version.stdout.splitlines()[0])
    for flags in TUNINGS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"  {flags:55s} wrong: {wrong_numbers(flags, Path(folder)):4d} of 1024", flush=True)


if __name__ == "__main__":
    main()
