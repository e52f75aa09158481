"""Synthetic sweeps of methods whose worth is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from samples_of_fits import TRUTH

from scaling import SupervisedLaw

SIZES, TOKENS = (8e3, 3e4, 1e5), (2.5e5, 1e6, 4e6)


def methods_sweep(
    worth: Mapping[str, float],
    *,
    noise: float = 0.0,
    common: float = 0.0,
    seeds: int = 2,
    seed: int = 0,
    on: str = "tokens",
    teachers: Mapping[str, float] | None = None,
    cost: Mapping[str, float] | None = None,
    law: SupervisedLaw = TRUTH,
) -> pd.DataFrame:
    """Students of 3 sizes x 3 token counts, supervised and by each method.

    ``worth`` multiplies ``on`` against supervised; a teacher of ``teachers`` multiplies all of its students'
    tokens. ``noise`` is a run's own, ``common`` what all runs of a configuration and seed share, both the
    standard deviation of ln loss. A run costs ``6 N D``, times ``cost`` of its method.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for N in SIZES:
        for D in TOKENS:
            for number in range(seeds):
                shared = common * rng.standard_normal()
                for way, times in {"supervised": 1.0, **worth}.items():
                    for teacher, helps in (
                        (teachers or {"t": 1.0}).items() if way != "supervised" else [(None, 1.0)]
                    ):
                        n, d = (N * times, D * helps) if on == "params" else (N, D * times * helps)
                        off = np.exp(shared + noise * rng.standard_normal())
                        rows.append(
                            {
                                "kind": "distillation" if teacher else "supervised",
                                "params": N,
                                "tokens": D,
                                "loss": float(law.loss(n, d)) * off,
                                "teacher": teacher,
                                "teacher_loss": 3.0 if teacher else np.nan,
                                "method": way if teacher else None,
                                "seed": number,
                                "flops": 6 * N * D * (cost or {}).get(way, 1.0),
                            }
                        )
    return pd.DataFrame(rows).assign(run=[f"r{i}" for i in range(len(rows))])
