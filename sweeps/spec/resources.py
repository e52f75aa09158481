"""Resources of steps by size, hardware and its price, and caps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from scaling.costs.hardware import OWN_TABLE, UTILISATION, Hardware, hardware, unknown_device
from scaling.errors import InputError
from scaling.units import format_number
from sweeps.spec.fields import Count, Number, Quantity, SpecModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeps.dag.expand import Step
    from sweeps.spec.spec import Sweep

GPU_SHARE = 0.25
"""Default share of a GPU for a step, as the models of a sweep are small."""

CAP_UNITS = {"flops": "FLOPs", "gpu_hours": "GPU-hours", "dollars": "dollars", "hours": "hours"}


class Resources(SpecModel):
    """Resources of a step."""

    from_params: Quantity | Literal[0] = 0
    """Applies to steps whose model, or teacher, has at least this number of non-embedding parameters."""
    cpus: Count = Field(1, ge=1)
    """Cores on each node, one thread each."""
    gpus: Number = Field(0, ge=0)
    """GPUs on each node: a share of one, or several that train one step."""
    nodes: Count = Field(1, ge=1)
    """Nodes that train one step."""

    @model_validator(mode="after")
    def _whole(self) -> Resources:
        if self.nodes > 1 and 0 < self.gpus < 1:
            raise ValueError(f"gpus: {self.gpus:g}, but a step on {self.nodes} nodes has whole GPUs on each")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: {self.gpus:g} is neither a share of one nor a whole number of GPUs")
        return self

    @property
    def processes(self) -> int:
        """Processes of a step on each node: one for each GPU, or one."""
        return max(1, int(self.gpus))

    @property
    def gpu_count(self) -> int:
        """GPUs of which it has a share or all, on each node."""
        return math.ceil(self.gpus)

    @property
    def gang(self) -> bool:
        """True if a step has several processes."""
        return self.nodes * self.processes > 1

    def __str__(self) -> str:
        each = [f"{self.cpus} cpu{'s' * (self.cpus > 1)}"]
        each += [f"{self.gpus:g} gpu{'s' * (self.gpus > 1)}"] if self.gpus else []
        return " and ".join(each) + (f" on each of {self.nodes} nodes" if self.nodes > 1 else "")


def _of_distinct_sizes(rules: list[Resources]) -> list[Resources]:
    """Reject rules of one size, of which no step would know which it has."""
    seen: dict[float, int] = {}
    for number, rule in enumerate(rules):
        if (first := seen.setdefault(rule.from_params, number)) != number:
            raise ValueError(
                f"[{first}] and [{number}] both apply from {format_number(rule.from_params)} parameters; "
                "join them, or give one another from_params"
            )
    return rules


ResourceRules = Annotated[list[Resources], AfterValidator(_of_distinct_sizes)]
"""Resources of steps by size, each rule from another size on."""


class Devices(SpecModel):
    """Hardware for estimates of time and cost, and its price."""

    part = "hardware"
    name: str | None = None
    """Device of scaling/costs/hardware.csv, such as h100, from whose peak time is estimated; by default time
    is measured on this machine."""
    utilisation: Number = Field(UTILISATION, gt=0, le=1)
    """Share of the peak FLOP/s in a model's precision that training reaches (MFU); less for small models."""
    dollars_per_hour: Number | None = Field(None, gt=0)
    """Price of one GPU, or of one core if steps use none; by default that of the table."""

    @model_validator(mode="before")
    @classmethod
    def _fields(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError(f"expected fields, such as {{name: {given}}}")
        return given

    @field_validator("name")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and (problem := unknown_device(name)):
            raise ValueError(f"{problem}; or add it to a table of your own, which {OWN_TABLE} names")
        return name

    def objection(self, precision: str) -> str | None:
        """Return why time in a precision cannot be told, with the field; None if it can."""
        problem = self.name and unknown_device(self.name, precision)
        return f"hardware.name: {problem} in training.precision and teachers[].precision" if problem else None

    @property
    def gpu(self) -> Hardware | None:
        """Named GPU with its price; None if none is named."""
        if self.name is None:
            return None
        return self.multiplying(None)

    def multiplying(self, precision: str | None) -> Hardware:
        """Return the named GPU with its peak in ``precision``; fp32 is up to 30 times slower than bf16."""
        assert self.name is not None
        if precision and (problem := self.objection(precision)):
            raise InputError(problem)
        price = self.dollars_per_hour
        return hardware(self.name, precision=precision, utilisation=self.utilisation, dollars_per_hour=price)

    @property
    def price(self) -> float | None:
        """Dollars per hour of one GPU or core; None if unknown."""
        gpu = self.gpu
        return gpu.dollars_per_hour if gpu else self.dollars_per_hour


class Caps(SpecModel):
    """Caps on what all attempts in a store spend, over all interruptions and by all drivers together.

    A plan above a cap is refused. At work, a cap is exceeded by at most 5 %, or by what one step reserves if
    that is more; ``docs/explanation/sweeps.md`` says how that is enforced, and what may spend more.
    """

    flops: Quantity | None = None
    gpu_hours: Quantity | None = None
    dollars: Quantity | None = None
    hours: Quantity | None = None
    """Wall time of all drivers, added up: two that work side by side for an hour take two hours."""

    def check(self, **needs: float) -> None:
        """Refuse a sweep that is expected to need more than a cap.

        Args:
            needs: What it needs, by the name of the cap.

        Raises:
            InputError: Naming the cap, what is needed and what would help.
        """
        for name, needed in needs.items():
            cap = getattr(self, name)
            if cap is not None and needed > cap:
                raise InputError(
                    f"caps.{name}: the sweep needs about {needed:.3g} {CAP_UNITS[name]}, above its cap of "
                    f"{cap:.3g}; raise the cap or shrink a grid"
                )


def resources_of(steps: Sequence[Step], rules: Sequence[Resources], default: Resources) -> Resources:
    """Return the resources of ``steps`` that are trained together, by their largest model that is here."""
    if all(step.asks_server for step in steps):
        return Resources()
    models = (model for step in steps for model in (step, step.teacher) if model is not None)
    params = max(model.shape.params for model in models if not model.served)
    reached = [rule for rule in rules if params >= rule.from_params]
    return max(reached, key=lambda rule: rule.from_params, default=default)


def caps_of(sweep: Sweep) -> Caps:
    """Return the caps of a spec.

    Raises:
        InputError: for a cap in dollars without a price.
    """
    caps = sweep.caps
    if caps.dollars and sweep.hardware.price is None:
        raise InputError(
            "caps.dollars: no price is known; give hardware.name, such as h100, or hardware.dollars_per_hour"
        )
    return caps
