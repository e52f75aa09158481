"""What every part of a spec is made of: strict models, and quantities as people write them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from scaling.errors import InputError
from scaling.units import parse_quantity


def _quantity(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a quantity such as 100k, 1.5M or 2e6")
    if isinstance(value, int) and value > sys.float_info.max:
        raise ValueError("too large a number")
    try:
        return parse_quantity(value, "value")
    except InputError as error:
        raise ValueError(str(error).removeprefix("value: ")) from None


Quantity = Annotated[
    float,
    BeforeValidator(_quantity),
    Field(gt=0, le=1e30),
    WithJsonSchema({"type": ["number", "string"], "description": "A quantity such as 100k, 1.5M or 2e6."}),
]


Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Part(BaseModel):
    """A part of a spec: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
