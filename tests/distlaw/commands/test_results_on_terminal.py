"""A terminal is spared thousands of rows, a pipe gets every one."""

from __future__ import annotations

import gc
import io

import pandas as pd
import pytest

from distlaw.commands.sweep.run import MOST_ON_TERMINAL, SHOWN_ON_TERMINAL, _print_runs
from scaling.errors import InputError
from sweeps.watch.gc_pause import without_gc


@pytest.mark.parametrize(
    ("runs", "terminal", "shown"),
    [
        (MOST_ON_TERMINAL, True, MOST_ON_TERMINAL),
        (MOST_ON_TERMINAL + 1, True, SHOWN_ON_TERMINAL),
        (MOST_ON_TERMINAL + 1, False, MOST_ON_TERMINAL + 1),
    ],
)
def test_a_terminal_shows_the_first_of_many_runs(
    runs: int, terminal: bool, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame({"run": [f"{number:04x}" for number in range(runs)], "loss": 3.0})
    _print_runs(table, terminal=terminal)
    printed = capsys.readouterr()
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(printed.out), dtype={"run": "str"}), table[:shown])
    assert (f"{shown} of {runs:,} runs; --out" in printed.err) == (shown < runs)
    assert bool(printed.err) == (shown < runs)


def test_the_garbage_collector_is_paused_only_while_records_are_read() -> None:
    enabled = without_gc(gc.isenabled)
    assert (gc.isenabled(), enabled(), gc.isenabled()) == (True, False, True)

    @without_gc
    def damaged() -> None:
        raise InputError("damaged")

    with pytest.raises(InputError):
        damaged()
    assert gc.isenabled()
