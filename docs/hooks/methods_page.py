"""Named methods of distillation and their costs, from their own files."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from sweeps.spec.method.method import Method, named_methods
from sweeps.spec.method.method_parts import parts_of

_BEGINNINGS = {"data": "on the data", "teacher": "distilled on the data", "base": "on the base text"}


def methods(_: str = "") -> str:
    """Return a table of the named methods with the FLOPs of one trained token, and the YAML of each."""
    rows = ["| method | needs | FLOPs a trained token | once, by the teacher |", "|---|---|---|---|"]
    rows += [
        _row("forward KL (the default)", Method()),
        *(_row(f"`{name}`", Method(use=name)) for name in named_methods()),
    ]
    texts = {
        name: (files("sweeps.methods") / f"{name}.yaml").read_text().rstrip() for name in named_methods()
    }
    blocks = [f"### {name}\n\n```yaml\n{text}\n```\n" for name, text in texts.items()]
    return "\n".join([*rows, "", *blocks])


def _row(title: str, method: Method) -> str:
    passes = parts_of(method).source.passes(method)
    models = 2 if method.delta else 1  # what tuning did is told by the teacher and its base
    student = 3 * passes.trained + passes.written + (passes.read if method.delta else 0)
    each = _sum(student, models * passes.read + passes.written_along)
    once = _sum(0, passes.written_before)
    if method.neighbours:
        each, once = f"{each} and a search of the datastore", "`F_T` a token of the datastore"
    return f"| {title} | {'; '.join(_needs(method))} | {each} | {once} |"


def _needs(method: Method) -> Iterator[str]:
    source = method.source.by
    if method.reads_teacher:
        cached = method.model_dump(exclude_defaults=True) | {"logits": "cached"}
        yield "a teacher, online or cached" if _is_legal(cached) else "a teacher online"
    if source in ("teacher", "both"):
        yield "text that the teacher wrote"
    if source in ("student", "both"):
        yield "text that the student writes as it learns"
    if method.delta:
        yield "a teacher that was tuned from a base, and the base text"
    if method.neighbours:
        yield "a datastore of the teacher's features"
    if method.pretraining:
        yield "the data beside it"
    if method.init:
        yield f"a beginning ({_BEGINNINGS[method.init.by]})"


def _is_legal(fields: dict[str, Any]) -> bool:
    try:
        Method(**fields)
    except ValueError:
        return False
    return True


def _sum(student: float, teacher: float) -> str:
    terms = [f"{count:g} {of}" for count, of in ((student, "F_S"), (teacher, "F_T")) if count]
    return f"`{' + '.join(terms)}`" if terms else ""
