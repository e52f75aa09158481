"""Tables and reproducibility statements of the calibrations that ship.

Answers are read from a calibration's own file where it has them, and otherwise from ``reproducibility.yaml``;
a calibration without those answers does not ship.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from scaling import Calibration, published
from scaling.laws import coefficients
from scaling.units import format_number

ANSWERS = Path(__file__).with_name("reproducibility.yaml")
ASKED = {
    "form": "Which form is fitted, and on what grounds?",
    "models": "How many models were trained, of which sizes?",
    "counting": "Which parameters count towards a size?",
    "compute": "How much compute did the largest run take?",
    "data": "On how many tokens of which text, and was any of it repeated?",
    "hyperparameters": "How were hyperparameters chosen, and do they change with scale?",
    "shape": "What else was decided about the models, such as width against depth?",
    "training code": "Is the training code open?",
    "analysis code": "Is the code of the fit open?",
    "weights": "Are the trained models open?",
    "measurements": "Are the measurements open?",
    "checkpoints": "How many checkpoints of a run are fitted?",
    "metric": "What is measured, on which text?",
    "changes": "Were the measurements changed before the fit?",
    "objective": "Which objective is minimized?",
    "optimizer": "By which algorithm, with which settings?",
    "starts": "How was it started?",
    "rows": "Was every point used?",
    "checks": "How was the law checked?",
}
"""Questions that only the source of a calibration answers; they are grouped below."""
HEADINGS = {"form": "The law", "models": "Training", "weights": "Data", "objective": "The fit"}
"""Heading of the group that a question begins."""


def calibrations(_: str = "") -> str:
    """Return a table of the published calibrations."""
    rows = ["| name | distillation laws | draws | source |", "|---|---|---|---|"]
    for each in map(Calibration.load, published()):
        laws = ", ".join(each.distillation) or "none (supervised only)"
        rows.append(f"| `{each.name}` | {laws} | {each.draw_count or 'none'} | {each.provenance.source} |")
    return "\n".join(rows)


def statements(_: str = "") -> str:
    """Return the statements of all published calibrations."""
    answers = yaml.safe_load(ANSWERS.read_text())
    return "\n".join(statement(Calibration.load(name), answers.get(name, {})) for name in published())


def statement(calibration: Calibration, answers: Mapping[str, str]) -> str:
    """Return the answers for one calibration; raise ValueError for a missing or unknown one."""
    if wrong := set(ASKED) ^ set(answers):
        raise ValueError(
            f"{ANSWERS.name}: {calibration.name}: missing or unknown: {', '.join(sorted(wrong))}"
        )
    lines = [f"## {calibration.name}", "", calibration.provenance.source, ""]
    lines += [f"!!! warning\n    {text}\n" for text in calibration.provenance.warnings]
    for key, question in ASKED.items():
        if key in HEADINGS:
            lines += ["", f"**{HEADINGS[key]}**", ""]
        lines += [f"- *{question}* {' '.join(answers[key].split())}"]
        lines += [f"- *{more}* {answer}" for more, answer in _known(calibration, key)]
    return "\n".join([*lines, ""])


def _known(calibration: Calibration, after: str) -> list[tuple[str, str]]:
    """Return questions and answers from the calibration's own file that follow one of the questions."""
    made, a = calibration.provenance, calibration.architecture
    if after == "form":
        laws = {"supervised": calibration.supervised, **calibration.distillation}
        said = "; ".join(
            f"{kind} {len(own)} ({', '.join(own)})"
            for kind, own in ((kind, coefficients(law)) for kind, law in laws.items())
        )
        purpose = "To predict losses; the best sizes, tokens and teachers follow from it and are not fitted."
        return [("What is it for?", purpose), ("How many coefficients does it have?", f"{said}.")]
    if after == "data":
        rule = "6ND" if a.rule == "6nd" else f"F(N) with context {a.context}, vocabulary {a.vocab}"
        return [
            ("Over which ranges?", _ranges(calibration)),
            ("How is compute counted?", f"FLOPs by {rule}."),
        ]
    if after == "rows":
        runs = [f"{count} {kind}" for kind, count in calibration.region.runs.items()]
        return [("How many points was it fitted to?", f"{', '.join(runs) or 'Not reported'}.")]
    if after == "checks":
        spread = [f"{kind} {value:.4f}" for kind, value in calibration.residual_sd.items()]
        software = ", ".join(f"{name} {version}" for name, version in made.software.items())
        return [
            ("How far do the runs scatter around it?", f"{'; '.join(spread) or 'Not known'} (nats/token)."),
            ("What carries its uncertainty?", f"{calibration.draw_count} draws of all coefficients."),
            ("What makes it again?", f"`{made.command}` ({made.date}{'; ' + software if software else ''})."),
        ]
    return []


def _ranges(calibration: Calibration) -> str:
    region = calibration.region
    names = ("params", "tokens", "student_params", "student_tokens", "teacher_loss")
    known = {name: getattr(region, name) for name in names if getattr(region, name)}
    said = [f"{name} {format_number(a)} to {format_number(b)}" for name, (a, b) in known.items()]
    return "; ".join(said).replace("_", " ") + "."
