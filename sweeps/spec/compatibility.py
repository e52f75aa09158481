"""Which choices of a method go together, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.spec.fields import SpecModel
    from sweeps.spec.method import Method

PARAMETERS = {
    "jensen-shannon": ("beta",),
    "skew-kl": ("skew",),
    "reverse-skew-kl": ("skew",),
    "decoupled-kl": ("gold", "others"),
}
"""Fields that only some divergences read."""
PROMPTED = ("prompt_tokens", "temperature")
WRITING = ("fraction", "teacher_share", "replay")
"""Fields of a source that only text after prompts has, and only that of the student."""


def objection(method: Method) -> str | None:
    """Why ``method`` cannot be run, or None."""
    return next(_objections(method), None)


def _objections(method: Method) -> Iterator[str]:
    own = PARAMETERS.get(method.divergence, ())
    for name in sorted({name for names in PARAMETERS.values() for name in names}):
        if name not in own and _given(method, name):
            readers = " and ".join(d for d, names in PARAMETERS.items() if name in names)
            yield f"{name}: {method.divergence} does not read it, only {readers}"
    if method.logits != "top-k" and _given(method, "top"):
        yield f"top: logits: {method.logits} does not read it, only top-k"
    if method.logits == "top-k":
        yield from _hidden_in_the_tail(method)
    if method.taid and method.divergence != "forward-kl":
        yield f"taid: it sets its pace by forward-kl, not {method.divergence}"
    if method.divergence == "decoupled-kl" and not (method.gold or method.others):
        yield "gold: with others at 0 too, nothing would be taught"
    yield from _about_its_source(method)
    if method.neighbours:
        yield from _votes(method)
    if method.delta:
        yield from _moved_bases(method)
    if method.midpoint == "exact":
        yield from _exact_midpoint(method)
    if method.credit:
        yield from _long_horizon(method)


def _hidden_in_the_tail(method: Method) -> Iterator[str]:
    """What top-k logits do not tell of the tokens beyond the top."""
    instead = "use logits: cached"
    if method.temperature != 1:
        tau = f"{method.temperature:g}"
        yield f"logits: top-k keeps the tail's mass at temperature 1, which says nothing of {tau}; {instead}"
    if method.taid:
        yield f"taid: it mixes teacher and student token by token, also in the tail; {instead}"
    if method.divergence == "decoupled-kl":
        yield f"divergence: decoupled-kl singles the label out, which may be in the tail; {instead}"


def _about_its_source(method: Method) -> Iterator[str]:
    source = method.source
    for name in PROMPTED if source.by == "data" else ():
        if _given(source, name):
            yield f"source.{name}: text of the data has no prompts and is not written; set source.by"
    for name in WRITING if source.by != "student" else ():
        if _given(source, name):
            yield f"source.{name}: it is about what the student writes; set source.by: student"
    if source.by != "data" and method.logits != "online":
        yield (
            f"logits: what a teacher says about the data can be {method.logits}, what it says about text of "
            f"the {'models' if source.by == 'both' else source.by} cannot: it is not written yet; set online"
        )
    if source.by != "data" and method.taid:
        yield "taid: it sets its pace by how the loss falls on the data; set source.by: data"
    if source.by in ("student", "both") and method.cross_entropy:
        yield (
            "cross_entropy: tokens that the student drew itself are no labels; set pretraining for the "
            "cross-entropy of the data beside them"
        )
    if source.by != "student" and method.pretraining:
        yield "pretraining: it goes beside text of the student; set source.by: student"
    if source.by == "both" and method.divergence not in ("jensen-shannon", "total-variation"):
        yield f"source.by: both have their halves in jensen-shannon, total-variation, not {method.divergence}"
    if source.replay and source.fraction != 1:
        yield "source.fraction: with replay it is source.replay that says how many batches the student writes"


def _votes(method: Method) -> Iterator[str]:
    """What cannot follow a distribution that is zero nearly everywhere, and is known of the data alone."""
    if method.divergence != "decoupled-kl":
        yield (
            f"neighbours: few tokens get a vote, and {method.divergence} asks for all; "
            "set divergence: decoupled-kl, in which those without one teach nothing"
        )
    if method.taid:
        yield "neighbours: taid mixes logits, and tokens without a vote have none"
    if method.logits != "online":
        yield f"logits: neighbours are written down as they are; remove logits: {method.logits}"
    if method.temperature != 1:
        yield "temperature: votes have their own, neighbours.temperature; leave the method's at 1"
    if method.source.by != "data":
        yield "neighbours: they are found for the text of the data; set source.by: data"


def _moved_bases(method: Method) -> Iterator[str]:
    if method.init is None or method.init.by != "base":
        yield (
            "delta: it moves the student's own base, which must be trained on what the teacher's base was; "
            "set init.by: base"
        )
    if method.source.by != "data":
        yield (
            f"delta: it is a target on the data, and text of the {method.source.by} is drawn from no base; "
            "set source.by: data"
        )
    if method.neighbours:
        yield "delta: neighbours vote in the teacher's stead, and nothing is left to move; remove one"


def _exact_midpoint(method: Method) -> Iterator[str]:
    if method.divergence != "jensen-shannon":
        yield f"midpoint: {method.divergence} has none, only jensen-shannon"
    if method.source.by != "both":
        yield (
            "midpoint: exact weighs both models by how likely each finds the text from its prompt on, which "
            "is about text that they wrote; set source.by: both"
        )
    if method.temperature != 1 or method.source.temperature != 1:
        yield "midpoint: exact is about sequences at temperature 1; leave both temperatures at 1"


def _long_horizon(method: Method) -> Iterator[str]:
    source = method.source
    if source.by != "student" or source.fraction != 1 or source.replay:
        yield (
            "credit: what came after a token is credited to how it was drawn, which is known only of text "
            "that the student has just written; set source.by: student, without fraction or replay"
        )
    if method.divergence != "reverse-kl":
        yield f"credit: its rewards add up to reverse-kl, not {method.divergence}"
    if method.temperature != 1 or source.temperature != 1:
        yield "credit: its rewards are at temperature 1; leave both temperatures at 1"
    if method.credit and method.credit.include_current and method.credit.rewards == "expected":
        yield "credit.include_current: what is expected of a token itself credits none; set rewards: sampled"


def _given(part: SpecModel, name: str) -> bool:
    return bool(getattr(part, name) != type(part).model_fields[name].default)
