"""Losses at one point, with intervals and the distance from the fitted region."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, as_calibration
from scaling.calibration.region import beyond
from scaling.errors import InputError
from scaling.laws import EffectiveTokensLaw
from scaling.planner.plan import Estimate
from scaling.planner.teacher_catalogue import check_teacher_loss
from scaling.planner.uncertainty import Decisions, Judge, region_values
from scaling.planner.warnings import weak_teacher
from scaling.to_plain import as_plain
from scaling.units import check_params, format_number, parse_quantity, parse_tokens

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Predicted losses of one student under a calibration.

    >>> from scaling import predict
    >>> sorted(predict(student_params="1B", student_tokens="20:1").losses)
    ['supervised']
    """

    calibration: str
    student_params: float
    student_tokens: float
    teacher_params: float | None
    teacher_tokens: float | None
    teacher_loss: float | None
    """nats/token, where it was given."""
    losses: Mapping[str, Estimate]
    """nats/token: ``supervised``, ``teacher`` where predicted, and the student under each kind of law."""
    outside: Mapping[str, float]
    """Factor by which each variable lies outside the fitted region; 1 is inside."""
    warnings: tuple[str, ...]

    @property
    def asked(self) -> str:
        """The question, as it was read: ``1B student, 20B tokens``."""
        parts = [f"{format_number(self.student_params)} student, {format_number(self.student_tokens)} tokens"]
        teacher = [] if self.teacher_params is None else [format_number(self.teacher_params)]
        teacher += [] if self.teacher_loss is None else [f"L={self.teacher_loss:g}"]
        teacher += [] if self.teacher_tokens is None else [f"{format_number(self.teacher_tokens)} tokens"]
        parts += [f"teacher {', '.join(teacher)}"] if teacher else []
        return f"{'; '.join(parts)}; calibration {self.calibration}."

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {**as_plain(self)}

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per loss, as a pandas table; nats/token."""
        import pandas

        rows = [{"what": name, **as_plain(loss)} for name, loss in self.losses.items()]
        return pandas.DataFrame(rows)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells, rounded for a person."""
        return ["what", "loss (90 %), nats/token"], [[name, str(loss)] for name, loss in self.losses.items()]

    def _repr_html_(self) -> str:
        from scaling.reports.html import html_answer

        return html_answer(self.asked, (), self.table(), (f"! {warning}" for warning in self.warnings))


def predict(
    calibration: Calibration | str | Path = DEFAULT_CALIBRATION,
    *,
    student_params: float | str,
    student_tokens: float | str,
    teacher_loss: float | str | None = None,
    teacher_params: float | str | None = None,
    teacher_tokens: float | str | None = None,
) -> Prediction:
    """Predict the student's loss alone, and with a teacher if one is given.

    Args:
        calibration: A calibration, the path of a file, or the name of a published set.
        student_params: Non-embedding parameters, a number or a text such as ``300M``.
        student_tokens: Training tokens, likewise, or a ratio to the parameters such as ``20:1``.
        teacher_loss: The teacher's measured held-out loss, nats/token.
        teacher_params: Its non-embedding parameters, which with its tokens predict its loss.
        teacher_tokens: Its training tokens.

    Returns:
        Losses in nats/token with 90 % intervals, and how far outside the fitted runs they lie.

    Raises:
        InputError: Where a teacher is half described, and for texts that are no quantities.

    >>> from scaling import predict
    >>> predict(student_params="1B", student_tokens="20:1").asked
    '1B student, 20B tokens; calibration busbridge2025-figure1-runs.'
    """
    calibration = as_calibration(calibration)
    student_params = _size(student_params, "student_params")
    student_tokens = parse_tokens(student_tokens, student_params, "student_tokens")
    teacher_params = None if teacher_params is None else _size(teacher_params, "teacher_params")
    if teacher_tokens is not None:
        teacher_tokens = parse_tokens(teacher_tokens, teacher_params, "teacher_tokens")
    if teacher_loss is not None:
        teacher_loss = parse_quantity(teacher_loss, "teacher_loss", "")
    elif (teacher_params is None) != (teacher_tokens is None):
        raise InputError("describe the teacher by its loss, or by both its parameters and its tokens")
    judge = Judge(calibration)
    losses = {"supervised": judge.direct(student_params, student_tokens)}
    where = {"params": student_params, "tokens": student_tokens}
    warnings = list(calibration.provenance.warnings)
    if teacher_loss is not None or teacher_params is not None:
        N_T, D_T = teacher_params or math.nan, teacher_tokens or math.nan
        where = _taught(judge, student_params, student_tokens, N_T, D_T, teacher_loss, losses, warnings)
    outside = calibration.region.outside(where, teacher_predicted=teacher_loss is None)
    if beyond(outside):
        warnings.append(f"extrapolated beyond the fitted runs: {beyond(outside)}")
    return Prediction(
        calibration=calibration.name,
        student_params=student_params,
        student_tokens=student_tokens,
        teacher_params=teacher_params,
        teacher_tokens=teacher_tokens,
        teacher_loss=teacher_loss,
        losses=losses,
        outside=outside,
        warnings=tuple(warnings),
    )


def _taught(
    judge: Judge,
    N_S: float,
    D_S: float,
    N_T: float,
    D_T: float,
    measured: float | None,
    losses: dict[str, Estimate],
    warnings: list[str],
) -> dict[str, float]:
    """Add the losses with a teacher, and warnings; return the distillation in the variables of a region.

    ``measured`` is the teacher's loss, nats/token; ``None`` where it is predicted from its size and tokens.
    """
    calibration, alone = judge.calibration, judge.supervised_loss(N_S, D_S)
    if not calibration.distillation:
        calibration.law()  # says that there is none
    if measured is None:
        L_T = judge.supervised_loss(N_T, D_T)
        losses["teacher"] = judge.direct(N_T, D_T)
    else:
        check_teacher_loss(calibration, L_T := measured)
    given = (N_S, D_S, N_T, D_T, L_T, measured is None, N_S, D_S)
    decisions = Decisions(*(np.array([value]) for value in given))
    for kind, law in calibration.distillation.items():
        if calibration.refuses(kind, L_T):
            warnings.append(
                f"the {kind} law is not asked: the teacher's loss {L_T:.3f} is better than any it was "
                "fitted to, and left out of a fit such teachers are missed by 6 to 12 %"
            )
            continue
        losses[kind] = judge.outcome(decisions, kind).estimate(0)
        if alone < L_T and not isinstance(law, EffectiveTokensLaw):
            reason = f"the teacher's loss {L_T:.3f} is above the {alone:.3f} that the student reaches alone"
            warnings.append(weak_teacher(reason, kind))
    return region_values(N_S, D_S, N_T, D_T, L_T, alone)


def _size(value: float | str, what: str) -> float:
    params = parse_quantity(value, what, "params")
    check_params(params, what)
    return params
