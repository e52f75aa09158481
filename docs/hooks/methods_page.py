"""The named methods of distillation: what they are and what they cost, from their own files."""

from __future__ import annotations

from importlib.resources import files

from sweeps.methods import Method
from sweeps.methods.method import named
from sweeps.passes import passes_of


def methods(_: str = "") -> str:
    """A table of the named methods with the FLOPs of one trained token, and the YAML behind each name."""
    rows = ["| method | FLOPs a trained token | once, by the teacher |", "|---|---|---|"]
    rows += [
        _row("forward KL (the default)", Method()),
        *(_row(f"`{name}`", Method(use=name)) for name in named()),
    ]
    texts = {name: (files("sweeps.methods") / f"{name}.yaml").read_text().rstrip() for name in named()}
    blocks = [f"### {name}\n\n```yaml\n{text}\n```\n" for name, text in texts.items()]
    return "\n".join([*rows, "", *blocks])


def _row(title: str, method: Method) -> str:
    passes = passes_of(method)
    student = 3 * passes.trained + passes.written
    teacher = passes.read + passes.written_along
    return f"| {title} | {_sum(student, teacher)} | {_sum(0, passes.written_before)} |"


def _sum(student: float, teacher: float) -> str:
    terms = [f"{count:g} {of}" for count, of in ((student, "F_S"), (teacher, "F_T")) if count]
    return f"`{' + '.join(terms)}`" if terms else ""
