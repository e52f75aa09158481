"""Which choices of a method go together, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.spec import Method

PARAMETERS = {
    "jensen-shannon": ("beta",),
    "skew-kl": ("skew",),
    "reverse-skew-kl": ("skew",),
    "decoupled-kl": ("gold", "others"),
}
"""Fields that only some divergences read."""


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


def _given(method: Method, name: str) -> bool:
    return getattr(method, name) != type(method).model_fields[name].default
