"""Legality of methods and measures: choices that cannot be combined, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweeps.spec.method.method_parts import MethodParts, parts_of
from sweeps.spec.method.registry import Use, divergences
from sweeps.spec.trainer import ROLES

if TYPE_CHECKING:
    from sweeps.spec.fields import SpecModel
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep

PARAMETERS = ("beta", "gold", "others", "skew")
"""Fields of a method that only some divergences read."""
LOGIT_OPTIONS = {
    "top": ("top-k", "top-p"),
    "top_p": ("top-p",),
    "draws": ("sampled",),
    "proposal_power": ("sampled",),
    "probability_bits": ("top-k", "top-p"),
}
"""Options of how distributions are written down, and the ``logits`` that read them."""
READ_BY_SOURCES = {
    "pretraining": "it goes beside text of the student; set source.by: student",
    "midpoint": (
        "exact weighs both models by how likely each finds the text from its prompt on, which is about text "
        "that they wrote; set source.by: both"
    ),
    "credit": (
        "what came after a token is credited to how it was drawn, which is known only of text that the "
        "student has just written; set source.by: student, without fraction or replay"
    ),
}
"""Fields of a method that only some sources read, and what to say under the others."""


def objection(method: Method) -> str | None:
    """Return why ``method`` cannot be run, or None."""
    return next(_objections(method, parts_of(method)), None)


def given(part: SpecModel, name: str) -> bool:
    """Return True if the field ``name`` of ``part`` is not at its default."""
    return bool(getattr(part, name) != type(part).model_fields[name].default)


def _objections(method: Method, parts: MethodParts) -> Iterator[str]:
    yield from _unread_parameters(method)
    yield from _about_logits(method, parts)
    if method.midpoint == "exact" and method.divergence != "jensen-shannon":
        yield f"midpoint: {method.divergence_label} has none, only jensen-shannon"
    yield from _about_other_modules(method, parts)
    yield from _about_cached_features(method, parts)
    yield from parts.divergence.objections(method)
    for name, reason in READ_BY_SOURCES.items():
        if given(method, name) and name not in type(parts.source).model_fields:
            yield f"{name}: {reason}"
    for part in parts:
        if part is not parts.divergence:
            yield from part.objections(method)


def _unread_parameters(method: Method) -> Iterator[str]:
    fields = {name: kind.model_fields for name, kind in divergences().items()}
    own = () if isinstance(method.divergence, Use) else fields[method.divergence]
    for name in PARAMETERS:
        if name not in own and given(method, name):
            readers = [each for each in fields if name in fields[each]]
            yield f"{name}: {method.divergence_label} does not read it, only {' and '.join(readers)}"


def _about_logits(method: Method, parts: MethodParts) -> Iterator[str]:
    """Yield what cannot follow logits that were written down, or not all of them."""
    if method.logits != "online" and method.token_loss_weight == 0:
        yield f"logits: at token_loss_weight: 0 nothing reads them; remove logits: {method.logits}"
    for name, readers in LOGIT_OPTIONS.items():
        if method.logits not in readers and given(method, name):
            yield f"{name}: logits: {method.logits} does not read it, only {' and '.join(readers)}"
    if method.logits in ("top-k", "top-p"):
        yield from _about_tails(method, parts)
    if method.logits == "sampled":
        yield from _about_draws(method)


def _about_tails(method: Method, parts: MethodParts) -> Iterator[str]:
    """Yield what cannot follow the likeliest tokens and a tail."""
    instead = "use logits: cached"
    if method.temperature != 1:
        tau = f"{method.temperature:g}"
        yield (
            f"logits: {method.logits} keeps the tail's mass at temperature 1, which says nothing of {tau}; "
            f"{instead}"
        )
    if parts.divergence.reads_labels:
        name = method.divergence_label
        yield f"divergence: {name} singles the label out, which may be in the tail; {instead}"


def _about_draws(method: Method) -> Iterator[str]:
    """Yield what cannot follow tokens that were drawn: what is not linear in the target is biased by them."""
    if method.divergence != "forward-kl" or method.taid:
        name = "taid" if method.taid else method.divergence_label
        yield (
            "logits: tokens that were drawn are unbiased for forward-kl alone, whose gradient is linear in "
            f"the target, and not for {name}; use logits: cached"
        )
    if method.temperature != 1:
        yield (
            "logits: sampled keeps tokens drawn at temperature 1, which say little of "
            f"{method.temperature:g}; use logits: cached"
        )


def _about_cached_features(method: Method, parts: MethodParts) -> Iterator[str]:
    """Yield why hidden states of teachers cannot be read from a cache."""
    for name, loss in parts.auxiliary_losses.items():
        if loss.cache and not parts.source.is_data:
            yield (
                f"{name}.cache: hidden states are kept for the text of the data, and text of the "
                f"{method.source_label} is another; remove cache: {loss.cache}, or set source.by: data"
            )


def _about_other_modules(method: Method, parts: MethodParts) -> Iterator[str]:
    """Yield what parts of other modules cannot be combined with."""
    if isinstance(method.divergence, Use) and method.taid:
        yield f"taid: it sets its pace by forward-kl, not {method.divergence_label}"
    if method.target:
        for name in ("delta", "neighbours"):
            if getattr(method, name):
                yield f"target: {method.target.use} takes the place of {name}; remove one"
        if method.logits != "online" and not parts.target.cacheable:
            yield (
                f"logits: {method.target.use} cannot be {method.logits}; set online, or let it declare that "
                "it is cacheable"
            )
    if isinstance(method.source, Use):
        if method.logits != "online" and not parts.source.is_data:
            yield f"logits: text of {method.source.use} is not the data that they are kept for; set online"
        if parts.source.writes_before and parts.source.writes_along:
            yield f"source: {method.source.use} writes both before training and along it; choose one"
    if method.other_teachers and not method.uses_modules:
        yield "other_teachers: no part of another module reads them; remove them"


def trainer_objections(sweep: Sweep) -> Iterator[str]:
    """Yield why a command cannot train some runs, with the place of their grid."""
    for role in ROLES:
        for where, grid in sweep.grids(role):
            trainer = sweep.trainer_of(role, grid)
            if trainer is None:
                continue
            about_teacher = [name for name in sorted(trainer.placeholders) if name.startswith("teacher")]
            if role != "students" and about_teacher:
                yield f"{where}: its command names {{{about_teacher[0]}}}, and these runs have no teacher"
            if role == "teachers" and sweep.base:
                yield f"{where}: base: a command trains on one text; leave out base or this trainer"


def projection_objections(sweep: Sweep) -> Iterator[str]:
    """Yield why the losses of some runs cannot be projected, with the place of their grid."""
    for role in ROLES:
        for where, grid in sweep.grids(role):
            if "projected" not in grid.measure:
                continue
            if sweep.training.schedule != "wsd":
                yield (
                    f"{where}.measure: projected needs the stable phase that runs have under "
                    f"training.schedule: wsd; found {sweep.training.schedule}"
                )
            if not sweep.share_prefixes:
                yield f"{where}.measure: projected needs the prefix that runs share; set share_prefixes: true"
            if role == "teachers":
                yield f"{where}.measure: students learn from teachers that were decayed; leave projected out"
            if sweep.trainer_of(role, grid):
                yield (
                    f"{where}.measure: a command trains its runs to the end; project losses of runs of your "
                    "own in their table (column projected_sd), or train these with distlaw"
                )
