"""Which choices of a method go together, and why the others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.spec import Method

PARAMETERS = {"jensen-shannon": ("beta",), "skew-kl": ("skew",), "reverse-skew-kl": ("skew",)}
"""Fields that only some divergences read."""


def objection(method: Method) -> str | None:
    """Why ``method`` cannot be run, or None."""
    return _idle_parameter(method)


def _idle_parameter(method: Method) -> str | None:
    """A parameter that was set and that nothing would read."""
    for name in sorted({name for names in PARAMETERS.values() for name in names}):
        default = type(method).model_fields[name].default
        if name not in PARAMETERS.get(method.divergence, ()) and getattr(method, name) != default:
            readers = " and ".join(d for d, names in PARAMETERS.items() if name in names)
            return f"{name}: {method.divergence} does not read it, only {readers}"
    return None
