"""Deterministic kernels: chosen on a GPU where the spec says so, and said in results."""

from __future__ import annotations

import os

import pytest
import torch

from scaling.errors import InputError
from sweeps.dag.identity import training_identity
from sweeps.model import device as module
from sweeps.model.device import nondeterministic_operation, reproducibility, use_deterministic_kernels
from sweeps.spec.spec import Training


def test_the_field_changes_no_id() -> None:
    assert training_identity(Training(deterministic=True)) == training_identity(Training())


def test_kernels_are_chosen_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors instead of warnings, under which PyTorch's attention would not be deterministic.

    PyTorch looks for cuBLAS's workspace at the first product of a process, so it is set before.
    """
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
    monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))
    use_deterministic_kernels(True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert reproducibility(False) == reproducibility(True) == "bit for bit on this kind of processor"
    monkeypatch.setattr(module, "device", lambda: torch.device("cuda"))
    use_deterministic_kernels(False)
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        use_deterministic_kernels(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        use_deterministic_kernels(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert reproducibility(True) == "bit for bit on this kind of GPU"
    assert reproducibility(False).startswith("but for rounding")


def test_an_operation_without_such_a_kernel_is_refused_by_its_name() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError) as raised:
            torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    found = nondeterministic_operation(raised.value)
    assert isinstance(found, InputError)
    assert str(found).startswith("training.deterministic: put_ has no deterministic kernel on this device; ")
    assert nondeterministic_operation(RuntimeError("another")) is None
