"""Parts of methods by name: those that ship, and those of any importable module, ``use: MODULE:NAME``."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import ConfigDict, ValidationError, ValidationInfo, model_validator

from scaling.errors import InputError
from sweeps.spec.fields import SpecModel
from sweeps.spec.method.interfaces import SLOTS, Divergence, MethodPart

SHIPPED: dict[str, dict[str, str]] = {
    "divergence": {
        "forward-kl": "sweeps.methods.builtin.divergences:ForwardKL",
        "reverse-kl": "sweeps.methods.builtin.divergences:ReverseKL",
        "jensen-shannon": "sweeps.methods.builtin.divergences:JensenShannon",
        "total-variation": "sweeps.methods.builtin.divergences:TotalVariation",
        "skew-kl": "sweeps.methods.builtin.divergences:SkewKL",
        "reverse-skew-kl": "sweeps.methods.builtin.divergences:ReverseSkewKL",
        "decoupled-kl": "sweeps.methods.builtin.divergences:DecoupledKL",
    },
    "taid": {"taid": "sweeps.methods.builtin.taid:TaidDivergence"},
    "target": {
        "teacher": "sweeps.methods.builtin.teacher_target:TeacherTarget",
        "delta": "sweeps.methods.builtin.delta:DeltaTarget",
        "neighbours": "sweeps.methods.builtin.neighbours:NeighborsTarget",
    },
    "source": {
        "data": "sweeps.methods.builtin.text_sources:DataText",
        "teacher": "sweeps.methods.builtin.text_sources:TeacherText",
        "student": "sweeps.methods.builtin.student_text:StudentText",
        "both": "sweeps.methods.builtin.student_text:HalfAndHalf",
    },
    "metrics": {
        "divergences": "sweeps.methods.builtin.standard_metrics:Divergences",
        "cross-likelihood": "sweeps.methods.builtin.standard_metrics:CrossLikelihood",
    },
    "initial_weights": {"teacher-copy": "sweeps.methods.builtin.teacher_weights:TeacherWeights"},
}
"""Parts that ship, by the field of a method that takes them and their name there."""
SOURCES: dict[str, str] = {}
"""Hash of the source of each module when it was imported here, by name."""
OWN_MODULES: set[str] = set()
"""Names of the modules that specs use, for messages about errors in them."""
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
STANDARD_METRICS = ("divergences", "cross-likelihood")
"""Metrics that are measured of every distilled student."""


class Use(SpecModel):
    """A part that an importable module defines, with its options beside."""

    model_config = ConfigDict(extra="allow")

    use: str
    """``MODULE:NAME``, a subclass of one of the interfaces in :mod:`sweeps.methods`."""
    version: str = ""
    """Version of the part, or the hash of its module's source; found when the spec is read."""

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> Use:
        """Import the part, check its options and note its version, unless a store's record is read."""
        if info.context and info.context.get("recorded"):
            return self
        refresh(self.use)
        part = self.part_in(None)
        object.__setattr__(self, "version", version_of(type(part)))
        object.__setattr__(self, "__pydantic_extra__", part.model_dump(mode="json", exclude_defaults=True))
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Options of the part, as they are given."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def label(self) -> str:
        """Name for tables: the part's, and its options."""
        return " ".join([self.use.rpartition(":")[2], *(f"{k}={v}" for k, v in self.options.items())])

    def part_in(self, slot: str | None) -> MethodPart:
        """Return the part.

        Args:
            slot: The field of a method that it must fit; None for any.

        Raises:
            InputError: If the module cannot be imported, defines no such part, refuses an option, or has
                changed since the sweep was planned.
        """
        kind = load_object(self.use)
        _check_interface(self.use, kind, slot)
        OWN_MODULES.add(kind.__module__)
        if self.version not in ("", found := version_of(kind)):
            raise InputError(
                f"use: {self.use} has changed since this was planned (version {self.version} then, {found} "
                "here); plan again, or bring that version back"
            )
        try:
            part: MethodPart = kind(**self.options)
            return part
        except ValidationError as error:
            raise InputError(f"use: {self.use}: {_first_problem(error, kind)}") from None
        except TypeError as error:
            raise InputError(f"use: {self.use}: {error}") from None


def shipped_part(slot: str, name: str) -> type[MethodPart]:
    """Return the class of a part that ships.

    Raises:
        KeyError: If there is none of that name.
    """
    found: type[MethodPart] = load_object(SHIPPED[slot][name])
    return found


def divergences() -> dict[str, type[Divergence]]:
    """Return the divergences that ship, by name."""
    return {
        name: cast("type[Divergence]", shipped_part("divergence", name)) for name in SHIPPED["divergence"]
    }


@cache
def load_object(place: str) -> Any:
    """Return what ``MODULE:NAME`` is.

    Raises:
        InputError: If the module cannot be imported or has nothing of that name.
    """
    module_name, _, name = place.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise InputError(f"use: {place!r} is not MODULE:NAME, such as my_methods:Hellinger")
    module = _imported(module_name)
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"use: module {module_name} ({module.__file__}) defines no {name!r}{hint}")
    return getattr(module, name)


@cache
def version_of(kind: type[MethodPart]) -> str:
    """Return what identifies the numbers of a part: its ``version``, or a hash of its module's source."""
    if kind.version is not None:
        return str(kind.version)
    file = inspect.getsourcefile(kind)
    if file is None:
        raise InputError(
            f"use: {kind.__module__} has no source file to identify it by; set {kind.__name__}.version"
        )
    return f"sha256:{_hash_of(file)}"


def refresh(place: str) -> None:
    """Import the module of ``MODULE:NAME`` anew if its file has changed since, as an open notebook needs.

    Raises:
        InputError: If the module cannot be imported.
    """
    name = place.partition(":")[0]
    module = sys.modules.get(name)
    if module is None or name not in SOURCES or SOURCES[name] == _source_hash(module):
        return
    load_object.cache_clear()
    version_of.cache_clear()
    _imported(name, module)


def _source_hash(module: ModuleType) -> str:
    """Return the hash of a module's file as it is now; an empty text if there is none."""
    file = module.__file__
    return _hash_of(file) if file and Path(file).is_file() else ""


def _hash_of(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def _imported(name: str, again: ModuleType | None = None) -> ModuleType:
    try:
        module = importlib.reload(again) if again else importlib.import_module(name)
        SOURCES[name] = _source_hash(module)
        return module
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"use: no module {error.name!r} can be imported here; install it, or put its folder on "
                "PYTHONPATH, on every machine that runs steps"
            ) from None
        raise InputError(f"use: importing {name} failed: {error}") from None
    except Exception as error:  # a module may raise what it likes
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"use: importing {name} failed: {type(error).__name__}: {error} ({line.filename}:{line.lineno})"
        ) from None


def _check_interface(place: str, found: Any, slot: str | None) -> None:
    names = ", ".join(kind.__name__ for kind in SLOTS.values())
    if not (isinstance(found, type) and issubclass(found, MethodPart)):
        raise InputError(
            f"use: {place} is a {type(found).__name__}, not a subclass of an interface of sweeps.methods "
            f"({names})"
        )
    if found.__name__ in names.split(", "):
        raise InputError(f"use: {place} is the interface itself; name a subclass of it")
    if slot is not None and found.slot != slot:
        raise InputError(
            f"{slot}: {place} is a {SLOTS[found.slot].__name__}, which goes under {found.slot}; "
            f"{slot} takes a {SLOTS[slot].__name__}"
        )
    _check_signatures(place, found)


def _check_signatures(place: str, kind: type[MethodPart]) -> None:
    """Reject a part with a method of its interface that cannot be called as the interface's is."""
    interface = SLOTS[kind.slot]
    for name, method in vars(interface).items():
        own = getattr(kind, name)
        if name.startswith("_") or own is method or not inspect.isfunction(method):
            continue
        names = [
            each.name for each in inspect.signature(method).parameters.values() if each.kind in POSITIONAL
        ]
        try:
            inspect.signature(own).bind(*names)
        except TypeError as error:
            call = f"{name}({', '.join(names[1:])})"
            raise InputError(
                f"use: {place}: {name}{inspect.signature(own)} cannot be called as {call}: {error}"
            ) from None


def _first_problem(error: ValidationError, kind: type[MethodPart]) -> str:
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"no option {name!r}; it has {', '.join(kind.model_fields) or 'none'}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower()}{message[1:]}, found {problem['input']!r}"
