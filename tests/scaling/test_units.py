import math

import pytest

from scaling.errors import InputError
from scaling.units import format_number, format_quantity, parse_quantity, parse_tokens


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e21", 1e21),
        ("1.5E21", 1.5e21),
        ("143M", 143e6),
        ("300m", 300e6),
        ("1.5B", 1.5e9),
        ("300e6", 300e6),
        ("100k", 1e5),
        ("28B tokens", 28e9),
        ("1_000_000", 1e6),
        ("1,000,000 params", 1e6),
        ("0.32 ZFLOP", 0.32e21),
        ("3 PFLOPs", 3e15),
        (7, 7.0),
    ],
)
def test_reads_what_people_write(text, value):
    assert parse_quantity(text, "x") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "lots", "5 bananas", "1e", "3Z", "0", "-4M", "nan", "inf", math.nan, 0, -1]
)
def test_refuses_the_rest_and_names_the_quantity(text):
    with pytest.raises(InputError, match="budget"):
        parse_quantity(text, "budget")


def test_a_ratio_is_tokens_per_parameter():
    assert parse_tokens("20:1", 1e9, "tokens") == 2e10
    assert parse_tokens("5B", 1e9, "tokens") == 5e9


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.2e20, "FLOPs", "3.2e20 FLOPs (0.32 ZFLOP)"),
        (1e14, "FLOPs", "1e14 FLOPs (0.1 PFLOP)"),
        (1.4e9, "params", "1.4B params"),
        (999_999, "params", "1M params"),
        (28e9, "tokens", "28B tokens"),
        (512, "tokens", "512 tokens"),
    ],
)
def test_prints_for_a_person(value, unit, text):
    assert format_quantity(value, unit) == text


def test_format_survives_odd_numbers():
    assert [format_number(x) for x in (0.0, math.inf, 1e18, 0.00123)] == ["0", "inf", "1e+18", "0.00123"]
