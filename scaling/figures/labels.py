"""Axes of the variables of figures, with units, and their values in words."""

from __future__ import annotations

from scaling.figures.chart import Axis
from scaling.units import format_number, format_power

AXES = {
    "student_params": Axis(label="student parameters $N_S$ (non-embedding)", log=True, sizes=True),
    "student_tokens": Axis(label="student tokens $D_S$", log=True, sizes=True),
    "student_ratio": Axis(label="student tokens per parameter $D_S/N_S$", log=True, sizes=True),
    "student_compute": Axis(label="student training compute $C_S$ (FLOPs)", log=True),
    "teacher_params": Axis(label="teacher parameters $N_T$ (non-embedding)", log=True, sizes=True),
    "teacher_tokens": Axis(label="teacher tokens $D_T$", log=True, sizes=True),
    "teacher_ratio": Axis(label="teacher tokens per parameter $D_T/N_T$", log=True, sizes=True),
    "teacher_compute": Axis(label="teacher training compute $C_T$ (FLOPs)", log=True),
    "teacher_loss": Axis(label="teacher loss $L_T$ (nats/token)"),
    "budget": Axis(label="compute $C$ (FLOPs)", log=True),
    "loss": Axis(label="student loss $L_S$ (nats/token)"),
    "gain": Axis(label="gain over direct training (nats/token)"),
    "excess": Axis(label="loss above the optimum (nats/token)"),
    "compute_ratio": Axis(label="compute, times that of direct training", log=True, sizes=True),
    "tokens_ratio": Axis(label="tokens, times those of direct training", log=True, sizes=True),
}

_PHRASES = {
    "student_params": "{} student",
    "student_tokens": "{} tokens",
    "student_ratio": "{} tokens per parameter",
    "student_compute": "{} FLOPs for the student",
    "teacher_params": "{} teacher",
    "teacher_tokens": "{} teacher tokens",
    "teacher_ratio": "teacher with {} tokens per parameter",
    "teacher_compute": "{} FLOPs for the teacher",
    "teacher_loss": "teacher loss {}",
    "budget": "{} FLOPs",
}


def phrase(name: str, value: float) -> str:
    """Return a value of a variable in words: ``300M student``."""
    power = name in ("budget", "student_compute", "teacher_compute")
    return _PHRASES[name].format(format_power(value, 2) if power else format_number(value, 3))
