"""Inputs of a law from the variables that a figure holds and varies.

A figure may vary tokens, tokens per parameter or compute; each says the same of a run in other words. The
fewest that determine it are: a student's size with its tokens, and a teacher's loss or its size and tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import FAR, Region
from scaling.costs.flops import Architecture
from scaling.costs.scenarios import Scenario, cost, rates
from scaling.errors import InputError
from scaling.figures.chart import Array, Mask
from scaling.laws import AnySupervisedLaw


class LawInputs(NamedTuple):
    """Inputs of a law; arrays that broadcast. A teacher's size and tokens may be nan: unknown."""

    student_params: Array
    student_tokens: Array
    teacher_params: Array
    teacher_tokens: Array
    teacher_loss: Array


def law_inputs(
    given: Mapping[str, ArrayLike], architecture: Architecture, supervised: AnySupervisedLaw
) -> LawInputs:
    """Return the inputs that these variables determine (:data:`scaling.figures.labels.AXES` lists them).

    ``budget`` is compute for all that is charged; the shares ``logits`` and ``pretraining`` say what of the
    teacher is. Tokens are nan where the budget does not pay for the teacher.
    """
    of = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
    N_S = of["student_params"]
    N_T = of.get("teacher_params", np.array(np.nan))
    D_T = _tokens("teacher", N_T, of, architecture)
    L_T = of.get("teacher_loss")
    if L_T is None:
        if np.isnan(N_T).all() or np.isnan(D_T).all():
            raise InputError("a figure of students needs their teachers' loss, or their size and tokens")
        L_T = supervised.loss(N_T, D_T)
    if "budget" in of:
        charged = Scenario("figure", *(float(of.get(name, 0.0)) for name in ("logits", "pretraining")))
        F_S, F_T = architecture.forward_flops(N_S), architecture.forward_flops(N_T)
        each = rates(charged, F_S, F_T)
        rate = each.student + each.logits
        left = of["budget"] - cost(charged, F_S, 0.0, F_T, D_T).teacher
        D_S = np.where(left > rate, np.maximum(left, rate) / rate, np.nan)
    else:
        D_S = _tokens("student", N_S, of, architecture)
        if np.isnan(D_S).all():
            raise InputError("a figure of students needs their tokens, tokens per parameter or compute")
    return LawInputs(N_S, D_S, N_T, D_T, L_T)


def _tokens(who: str, params: Array, of: Mapping[str, Array], architecture: Architecture) -> Array:
    if f"{who}_tokens" in of:
        return of[f"{who}_tokens"]
    if f"{who}_ratio" in of:
        return np.asarray(of[f"{who}_ratio"] * params)
    if f"{who}_compute" in of:
        return np.asarray(of[f"{who}_compute"] / architecture.training_flops(params))
    return np.array(np.nan)


def near_runs(calibration: Calibration, at: LawInputs) -> Mask:
    """Return where inputs lie in the fitted region, or at most ``FAR`` times beyond it on any variable."""
    with np.errstate(invalid="ignore"):  # nan where the budget does not reach
        alone = calibration.supervised.loss(at.student_params, at.student_tokens)
    values = {**at._asdict(), "teacher_loss_ratio": at.teacher_loss / alone}
    found = np.ones(np.broadcast_shapes(*(np.shape(each) for each in values.values())), dtype=bool)
    for name, each in values.items():
        found = found & within(calibration.region, name, each)
    return found


def within(region: Region, name: str, values: Array) -> NDArray[np.bool_]:
    """Return where a variable lies in its range, or at most ``FAR`` times beyond; true if that is unknown."""
    known = getattr(region, name)
    if known is None:
        return np.ones(np.shape(values), dtype=bool)
    unknown = np.isnan(values)
    return np.asarray(unknown | ((values >= known[0] / FAR) & (values <= known[1] * FAR)))
