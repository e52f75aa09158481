"""Base class and field types of specs: strict models, and numbers as people write them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema

from scaling.errors import InputError
from scaling.units import parse_count, parse_number, parse_quantity, parse_ratio
from sweeps.spec.parsing.synonyms import with_canonical_names


def _reader(parse: Callable[[Any, str], float]) -> BeforeValidator:
    """Return a validator that reads text with ``parse``; pydantic rejects other types."""

    def read(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"expected a number, not {value}")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError("too large a number")
        try:
            return parse(value, "value") if isinstance(value, str) else value
        except InputError as error:
            raise ValueError(str(error).removeprefix("value: ")) from None

    return BeforeValidator(read)


def _positive(value: Any) -> Any:
    """Reject a number that is not a quantity."""
    if isinstance(value, int | float) and not value > 0:
        raise ValueError(f"must be positive and finite, not {value!r}")
    return value


def _schema(text: str) -> WithJsonSchema:
    bounds = {"exclusiveMinimum": 0, "maximum": LARGEST}
    return WithJsonSchema({"type": ["number", "string"], "format": "quantity", **bounds, "description": text})


class _OrText:
    """Annotation of numbers that may be written as text, such as 1e-3, which YAML reads as one."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        return found | {"type": [found["type"], "string"]}


LARGEST = 1e30
"""Largest quantity."""


Quantity = Annotated[
    float,
    BeforeValidator(_positive),
    _reader(parse_quantity),
    Field(gt=0, le=LARGEST),
    _schema("A quantity such as 100k, 1.5M or 2e6."),
]
Ratio = Annotated[
    float, _reader(parse_ratio), Field(gt=0, le=LARGEST), _schema("A ratio, such as 20 or 20:1.")
]
Number = Annotated[float, _reader(parse_number), _OrText()]
Count = Annotated[int, _reader(parse_count), _OrText()]
Seed = Annotated[Count, Field(ge=0, lt=2**31)]
Measures = Annotated[
    list[Literal["decayed", "projected"]],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(min_length=1),
]
Seeds = Annotated[list[Seed], Field(min_length=1)]


def _auto_or_bool(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("must be auto, true or false")


def _auto_or_quantity(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be auto or a quantity such as 4096 or 64k")
    try:
        return parse_quantity(str(value) if isinstance(value, str) else repr(value), "value")
    except InputError as error:
        raise ValueError(str(error).removeprefix("value: ")) from None


def _switch_or_sizes(value: Any) -> Any:
    """Return a value that fits one member of the union, so that errors name no others."""
    if value == "auto":
        return value
    kind = SIZES if isinstance(value, list | tuple) else SWITCH
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ") if kind is SIZES else ""
        accepted = "must be auto, true, false or a list of sizes such as [1M, 3M]"
        raise ValueError(f"{accepted}: {why}".removesuffix(": ")) from None


SWITCH, SIZES = TypeAdapter(bool), TypeAdapter(list[Quantity])
AutoOrBool = Annotated[Literal["auto"] | bool, BeforeValidator(_auto_or_bool)]
"""A switch that is decided for each run unless it is given."""
AutoOrQuantity = Annotated[Literal["auto"] | float, BeforeValidator(_auto_or_quantity)]
"""A quantity that is decided for each run unless it is given."""
SwitchOrSizes = Annotated[bool | Literal["auto"] | list[Quantity], BeforeValidator(_switch_or_sizes)]
"""A switch for all sizes, for those of a list, or for those that gain by it."""


BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


class BoundedJsonSchema(GenerateJsonSchema):
    """Generator of JSON schemas that writes bounds of numbers behind validators in JSON Schema's words.

    Pydantic writes these in its own, which editors do not check.
    """

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """Return the schema with all bounds as editors check them."""
        found: JsonSchemaValue = _with_standard_bounds(super().generate(schema, mode))
        return found


def _with_standard_bounds(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_standard_bounds(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name if isinstance(value, dict) else BOUNDS.get(name, name): _with_standard_bounds(value)
        for name, value in node.items()
    }


class SpecModel(BaseModel):
    """Part of a spec: immutable, and unknown fields are errors."""

    part: ClassVar[str | None] = None
    """Name of the field that holds it, where its fields have synonyms, for ``parsing.synonyms``."""
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _canonical_names(cls, given: Any) -> Any:
        return (
            given
            if cls.part is None or not isinstance(given, dict)
            else with_canonical_names(cls.part, given)
        )

    @classmethod
    def model_json_schema(cls, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Return the JSON schema, with bounds that editors check."""
        return super().model_json_schema(*arguments, **{"schema_generator": BoundedJsonSchema} | named)
