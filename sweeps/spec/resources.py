"""What steps run on and what that may cost: resources by size, hardware and its price, caps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from scaling.costs.hardware import UTILISATION, Hardware, hardware
from scaling.errors import InputError
from sweeps.spec.fields import Count, Number, Part, Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeps.dag.expand import Step
    from sweeps.spec.spec import Sweep

GPU_SHARE = 0.25
"""Of a GPU for each step, where there are GPUs and nothing else is said: the models of a sweep are small."""


class Resources(Part):
    """What a step runs on."""

    from_params: Quantity | Literal[0] = 0
    """Holds for steps whose model, or teacher, has at least so many non-embedding parameters."""
    cpus: Count = Field(1, ge=1)
    """Cores on each node, one thread each."""
    gpus: Number = Field(0, ge=0)
    """GPUs on each node: a share of one, or several that train the step together."""
    nodes: Count = Field(1, ge=1)
    """Machines that train the step together."""

    @model_validator(mode="after")
    def _whole(self) -> Resources:
        if (self.gpus > 1 or self.nodes > 1) and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: {self.gpus:g} is neither a share of one nor a whole number of GPUs")
        return self

    @property
    def processes(self) -> int:
        """Processes on each node that train the step together: one a GPU, or one."""
        return max(1, int(self.gpus))

    @property
    def gang(self) -> bool:
        """Whether it takes several processes."""
        return self.nodes * self.processes > 1

    def __str__(self) -> str:
        each = [f"{self.cpus} cpu{'s' * (self.cpus > 1)}"]
        each += [f"{self.gpus:g} gpu{'s' * (self.gpus > 1)}"] if self.gpus else []
        return " and ".join(each) + (f" on each of {self.nodes} nodes" if self.nodes > 1 else "")


class Devices(Part):
    """The hardware that a plan reckons with, and its price."""

    name: str | None = None
    """A GPU of scaling/costs/hardware.csv, such as h100: time is then FLOPs over what it reaches. If none is
    given, time comes from a probe of this machine."""
    utilisation: Number = Field(UTILISATION, gt=0, le=1)
    """Share of the GPU's peak in each model's precision that training reaches; small models reach less."""
    dollars_per_hour: Number | None = Field(None, gt=0)
    """Of one GPU, or where steps use none, of one core; the table's price if not given."""

    @model_validator(mode="after")
    def _known(self) -> Devices:
        if self.name is not None:
            self.gpu  # noqa: B018  (an unknown name is refused here)
        return self

    @property
    def gpu(self) -> Hardware | None:
        """The GPU with its price, if one is named."""
        if self.name is None:
            return None
        return self.multiplying(None)

    def multiplying(self, precision: str | None) -> Hardware:
        """The named GPU with its peak in ``precision``: fp32 is up to 30 times slower than bf16."""
        assert self.name is not None
        price = self.dollars_per_hour
        return hardware(self.name, precision=precision, utilisation=self.utilisation, dollars_per_hour=price)

    @property
    def price(self) -> float | None:
        """Dollars an hour of one GPU, or core; None if unknown."""
        gpu = self.gpu
        return gpu.dollars_per_hour if gpu else self.dollars_per_hour


class Caps(Part):
    """What all attempts in a store may spend, over all interruptions and by all drivers together.

    A plan above a cap is refused. At work, a cap is meant to be passed by at most 5 %, or by what one step
    reserves if that is more; ``docs/explanation/sweeps.md`` says what may spend more.
    """

    flops: Quantity | None = None
    gpu_hours: Quantity | None = None
    dollars: Quantity | None = None
    hours: Quantity | None = None
    """Of drivers' wall time, added up: two that work side by side for an hour take two hours."""


def resources_of(steps: Sequence[Step], rules: Sequence[Resources], default: Resources) -> Resources:
    """What ``steps`` that train together run on: by the rule that the largest model among them reaches."""
    params = max(model.shape.params for step in steps for model in (step, step.teacher) if model is not None)
    reached = [rule for rule in rules if params >= rule.from_params]
    return max(reached, key=lambda rule: rule.from_params, default=default)


def caps_of(sweep: Sweep) -> Caps:
    """The caps of a spec, in either spelling.

    Raises:
        InputError: for a cap in dollars where no price is known.
    """
    caps = sweep.caps
    if caps.dollars and sweep.hardware.price is None:
        raise InputError(
            "caps.dollars: no price is known; give hardware.name, such as h100, or hardware.dollars_per_hour"
        )
    limits = [limit for limit in (caps.flops, sweep.max_flops) if limit is not None]
    return caps.model_copy(update={"flops": min(limits, default=None)})
