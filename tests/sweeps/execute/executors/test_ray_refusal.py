"""Output of Ray does not hide the message with the reason of a refusal."""

from __future__ import annotations

import os

import pytest

from sweeps.execute.executors.ray_cluster import hold_back_stderr


def test_a_refusal_is_told_without_ray_s_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """Written by C++, past Python's ``sys.stderr``."""
    with pytest.raises(ConnectionError), hold_back_stderr():
        for _ in range(20):
            os.write(2, b"W gcs_client.cc:210: Unauthenticated: InvalidAuthToken\n")
        raise ConnectionError("refused")
    os.write(2, b"the sentence\n")
    assert capfd.readouterr().err == "the sentence\n"


def test_what_is_printed_otherwise_is_told_after(capfd: pytest.CaptureFixture[str]) -> None:
    with hold_back_stderr():
        os.write(2, b"a warning\n")
    assert capfd.readouterr().err == "a warning\n"
    with pytest.raises(KeyError), hold_back_stderr():
        os.write(2, b"a fault\n")
        raise KeyError
    assert capfd.readouterr().err == "a fault\n"
