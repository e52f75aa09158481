"""Recovery of the power that multipliers of methods were made with, and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fits.methods.multiplier_exponent import multiplier_exponent
from scaling import InputError

OVERLAPS = {"laplace": 0.98, "ternary": 0.9, "sparse": 0.6}


def table(power: float, noise: float = 0.004, sizes: int = 3, seed: int = 0) -> pd.DataFrame:
    """Students with J^power N effective parameters, three sizes by two token counts by two seeds."""
    rng = np.random.default_rng(seed)
    rows = []
    for N in (7e3, 22e3, 56e3)[:sizes]:
        for D in (262e3, 1048e3):
            for each in (0, 1):
                common = noise * rng.standard_normal()
                for method, J in {"free": 1.0, **OVERLAPS}.items():
                    loss = 1.2 + 8 / (J**power * N) ** 0.2 + 3000 / D**0.7
                    rows.append({
                        "kind": "distillation", "method": method, "params": N, "tokens": D, "seed": each,
                        "teacher": "t", "teacher_loss": 2.7,
                        "loss": loss * np.exp(common + noise * rng.standard_normal()),
                    })  # fmt: skip
    return pd.DataFrame(rows).assign(run=[f"r{n}" for n in range(len(rows))])


@pytest.mark.parametrize("power", [2.0, 0.7])
def test_the_power_is_found_again(power: float) -> None:
    found = multiplier_exponent(table(power), OVERLAPS, "free")
    assert found.exponent == pytest.approx(power, abs=0.25)
    assert power in found
    assert 0.01 < found.high - found.low < 1
    assert found.configurations == 6
    assert (2.0 in found) == (power == 2.0)
    assert str(found).startswith(f"{found.exponent:.2f} (90 % interval {found.low:.2f} to ")


@pytest.mark.parametrize(
    ("numbers", "sizes", "reason"),
    [
        ({"sparse": 0.0}, 3, "must be positive, and one of them not 1"),
        ({"sparse": 1.0}, 3, "must be positive, and one of them not 1"),
        ({"binary": 0.8}, 3, "no run of binary"),
        (OVERLAPS, 1, "2 configurations of size and tokens; an interval needs 3 at least"),
    ],
)
def test_bad_input_is_refused(numbers: dict[str, float], sizes: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        multiplier_exponent(table(2.0, sizes=sizes), numbers, "free")
