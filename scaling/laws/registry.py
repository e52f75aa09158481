"""Laws by name, supervised ones and distillation laws, and how a law of another module is loaded."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from scaling.laws.distillation import DistillationLaw
from scaling.laws.effective_tokens import EffectiveTokensLaw
from scaling.laws.farseer import FarseerLaw
from scaling.laws.over_training import OverTrainingLaw
from scaling.laws.published import PublishedLaw, PublishedLaw9
from scaling.laws.supervised import AnySupervisedLaw, SupervisedLaw

LAWS: dict[str, Callable[..., DistillationLaw]] = {
    "effective-tokens": partial(EffectiveTokensLaw, variant="simple"),
    "effective-tokens-capacity": partial(EffectiveTokensLaw, variant="capacity"),
    "effective-tokens-sharp": partial(EffectiveTokensLaw, variant="sharp"),
    "published": PublishedLaw,
    "published-7": PublishedLaw,
    "published-9": PublishedLaw9,
}
"""Distillation laws by kind; ``published`` has 8 coefficients, ``published-7`` the same with gamma = 1."""

POWER_LAW = "power-law"
SUPERVISED_LAWS: dict[str, Callable[..., AnySupervisedLaw]] = {
    POWER_LAW: SupervisedLaw,
    "over-training": OverTrainingLaw,
    "farseer": FarseerLaw,
}
"""Supervised laws by kind; a calibration has one of them."""

LAW_MODULES = "DISTLAW_LAWS"
"""Environment variable: laws to register, ``module:name`` each, separated by commas."""
SOURCES: dict[str, str] = {}
"""``module:name`` of the laws that were loaded by it, by kind."""


def supervised_kind(law: AnySupervisedLaw) -> str:
    """Return the name of a supervised law.

    Raises:
        InputError: if its class was not registered.
    """
    for kind, build in SUPERVISED_LAWS.items():
        if build is type(law):
            return kind
    raise InputError(f"{type(law).__name__} is not a registered supervised law: use fits.register_law")


def has_irreducible_loss(supervised_law: str) -> bool:
    """Return True if E is a coefficient of the supervised law of this name."""
    return any(each.name == "E" for each in fields(SUPERVISED_LAWS[supervised_law]))  # type: ignore[arg-type]


def check_compatible(supervised_law: str, kinds: Collection[str], where: str = "") -> None:
    """Check that distillation laws of these kinds can stand on the supervised law of this name.

    Raises:
        InputError: for a law of the effective-tokens family on a supervised law without E.
    """
    if has_irreducible_loss(supervised_law):
        return
    for kind in kinds:
        if kind.startswith("effective-tokens"):
            raise InputError(
                f"{where}the {kind} law needs the irreducible loss E of the supervised law, which "
                f"{supervised_law} lacks; published and published-7 do not"
            )


def load_law(place: str) -> str:
    """Import the law at ``module:name``, what :func:`fits.register_law` returned there; return its kind.

    The folder that the process runs in is searched first, then the installed packages.

    Args:
        place: The module and the name in it, for example ``my_laws:saturating``.

    Returns:
        The name that the law was registered under.

    Raises:
        InputError: if the module cannot be imported, or holds no registered law of that name.

    >>> from fits import load_law
    >>> from scaling import InputError
    >>> try:
    ...     load_law("no_such_module:law")
    ... except InputError as error:
    ...     print(str(error)[:46])
    law no_such_module:law: importing no_such_modu
    """
    module, _, name = place.strip().partition(":")
    if not (module and name.isidentifier()):
        raise InputError(f"law {place!r}: must be MODULE:NAME, for example my_laws:saturating")
    found = getattr(_imported(module, place), name, None)
    for laws in (SUPERVISED_LAWS, LAWS):
        for kind, build in laws.items():
            if found is not None and build is found:
                SOURCES[kind] = place.strip()
                return kind
    raise InputError(
        f"law {place}: {module} holds no registered law {name!r}; write {name} = fits.register_law(...) there"
    )


def _imported(module: str, place: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may raise what it likes
        raise InputError(
            f"law {place}: importing {module} failed: {type(error).__name__}: {error}; it is searched for in "
            f"{here} and among the installed packages"
        ) from None
    finally:
        sys.path.remove(here)


def find_kind(kind: str, laws: Collection[str]) -> bool:
    """Return True if a law is registered, after loading those of the environment where it is not."""
    if kind not in laws and os.environ.get(LAW_MODULES):
        for place in os.environ[LAW_MODULES].split(","):
            load_law(place)
    return kind in laws


def unknown_law(kind: str, laws: Collection[str], source: str = "") -> str:
    """Return the message on a law that is not registered; ``source`` is where its calibration found it."""
    return (
        f"unknown law {kind!r}, not registered in this process; known are {', '.join(laws)}. Register it "
        f"with fits.register_law, or name the place of that: {LAW_MODULES}={source or 'MODULE:NAME'}"
    )
