"""Cores and the processor of this cpu."""

from __future__ import annotations

import os

import pytest

from scaling import cpu


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= cpu.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_kept_to_one_core_counts_one() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_first_line_of_a_name_is_found_whole(tmp_path, monkeypatch) -> None:
    """Kept to the byte: the key of measured throughputs is a hash of it."""
    there = tmp_path / "cpuinfo"
    there.write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz \nFeatures\t: fp asimd\nmodel name\t: B\n")
    monkeypatch.setattr(cpu, "CPUINFO", there)
    assert cpu.cpuinfo_line("model name") == "model name\t: A CPU @ 2 GHz "
    assert cpu.cpuinfo_line("flags", "Features") == "Features\t: fp asimd"
    assert cpu.cpuinfo_line("bogomips") is None
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "none")
    assert cpu.cpuinfo_line("model name") is None
