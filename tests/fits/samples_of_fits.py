"""Synthetic sweeps under a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling import EffectiveTokensLaw, SupervisedLaw

TRUTH = SupervisedLaw(E=1.6, A=17.0, B=612.0, alpha=0.22, beta=0.45)
DISTILLED = EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025)
FIGURE1 = SupervisedLaw(E=1.220, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
"""The supervised law printed in Table 6 of Busbridge et al. 2025."""


def sweep(
    noise: float = 0.0,
    seed: int = 0,
    sizes: tuple[float, ...] = (8e3, 3e4, 1e5, 4e5),
    tokens: tuple[float, ...] = (2.5e5, 5e5, 1e6, 2e6),
    students: tuple[float, ...] = (8e3, 3e4, 1e5),
) -> pd.DataFrame:
    """A small sweep: every size at every token count, then students under four of those as teachers."""
    rng = np.random.default_rng(seed)

    def measured(loss: object) -> float:
        return float(loss) * float(np.exp(noise * rng.standard_normal()))  # type: ignore[arg-type]

    rows = [
        {"kind": "supervised", "params": N, "tokens": D, "loss": measured(TRUTH.loss(N, D))}
        for N in sizes
        for D in tokens
    ]
    teachers = [rows[i]["loss"] for i in (3, 6, 10, 15) if students]
    rows += [
        {
            "kind": "distillation",
            "params": N,
            "tokens": D,
            "teacher_loss": L_T,
            "loss": measured(DISTILLED.loss(N, D, L_T, TRUTH)),
        }
        for N in students
        for D in tokens[1::2]
        for L_T in teachers
    ]
    return pd.DataFrame(rows).assign(run=[f"r{i}" for i in range(len(rows))])
