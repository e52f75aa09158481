"""Calibrations that questions are asked of in tests."""

import numpy as np

from scaling import (
    Calibration,
    EffectiveTokensLaw,
    Provenance,
    PublishedLaw9,
    Question,
    Region,
    SupervisedLaw,
    plan,
)
from scaling.costs.flops import Architecture

SUPERVISED = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
B100 = PublishedLaw9(
    c0=2.549, c1=522.6, d1=1.315, f1=0.090, A=2243.0, B=2418100.0, alpha=0.321, beta=0.637, gamma=0.764
)
BOX = {"student_tokens": (1e6, 1e17), "teacher_params": (1e6, 1e17), "teacher_tokens": (1e6, 1e17)}
F = Architecture().forward_flops


def calibration(**changes):
    values = {
        "name": "busbridge2025-b100",
        "supervised": SUPERVISED,
        "distillation": {"published-9": B100},
        "region": Region(student_params=(1.4e8, 7.75e9), student_tokens=(3e9, 5e11), teacher_loss=(1.9, 2.8)),
        "provenance": Provenance(source="a test", date="2026-11-22"),
    }
    return Calibration(**(values | changes))


def tiny(draws=60):
    """Calibration of a small sweep: another law, other scales, few runs, real uncertainty."""
    supervised = SupervisedLaw(E=1.6, A=30.0, B=900.0, alpha=0.30, beta=0.45)
    law = EffectiveTokensLaw(k=1.2, q=8.0, eps=0.02)
    rng = np.random.default_rng(0)
    sd = {
        "E": 0.05,
        "A": 0.1,
        "B": 0.1,
        "alpha": 0.01,
        "beta": 0.01,
        "gamma": 0,
        "k": 0.2,
        "q": 0.1,
        "eps": 0.1,
    }
    columns = {
        kind: {
            name: float(getattr(of, name)) * np.exp(sd[name] * rng.standard_normal(draws)) for name in names
        }
        for kind, of, names in [
            ("supervised", supervised, ("E", "A", "B", "alpha", "beta", "gamma")),
            ("effective-tokens", law, ("k", "q", "eps")),
        ]
    }
    return Calibration(
        name="tiny",
        supervised=supervised,
        distillation={"effective-tokens": law},
        draws=columns,
        region=Region(
            params=(1e4, 3e5), tokens=(2e5, 4e6), student_params=(1e4, 1e5), student_tokens=(2e5, 4e6)
        ),
        residual_sd={"supervised": 0.02, "effective-tokens": 0.02},
        architecture=Architecture(aspect_ratio=16, context=128, vocab=512),
        provenance=Provenance(source="a test", date="2026-11-22"),
    )


def ask(of=None, **question):
    return plan(Question(**question), of or calibration())


def best(answer, name):
    return next(way for way in answer.distillations if way.name == name)
