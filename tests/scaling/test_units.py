import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import Question, plan
from scaling.errors import InputError
from scaling.units import (
    format_flops,
    format_number,
    format_power,
    format_quantity,
    format_times,
    parse_count,
    parse_list,
    parse_number,
    parse_quantity,
    parse_ratio,
    parse_tokens,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e21", 1e21),
        ("1.5E21", 1.5e21),
        ("1e21FLOPs", 1e21),
        ("143M", 143e6),
        ("300m", 300e6),
        ("1.5B", 1.5e9),
        ("1.1B", 1.1e9),
        ("300e6", 300e6),
        ("100k", 1e5),
        (".5", 0.5),
        ("28B tokens", 28e9),
        ("28B\u00a0tokens", 28e9),
        ("1_000", 1e3),
        ("1_000_000", 1e6),
        ("1,000,000 params", 1e6),
        ("0.32 ZFLOP", 0.32e21),
        ("3 PFLOPs", 3e15),
        ("3.2e20 FLOPs (0.32 ZFLOP)", 3.2e20),
        (7, 7.0),
    ],
)
def test_reads_what_people_write(text, value):
    assert parse_quantity(text, "x") == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "lots", "5 bananas", "1e", "3Z", "0", "-4M", "nan", "inf", "0x10", "1_5", "1__000", "1 000"),
        *("1.000.000", "1,00", "1e400", "10²¹", "٣", "1\u212a", "3.2e20 FLOPs (3 PFLOP)"),
        *(math.nan, 0, -1, True, b"12", None),
    ],
)
def test_refuses_the_rest_and_names_the_quantity(text):
    with pytest.raises(InputError, match="budget"):
        parse_quantity(text, "budget")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("0,3B", "write 0.3B for a decimal"),
        ("1,5e21", "write 1.5e21 for a decimal"),
        ("1,500", "write 1.500 for a decimal, or 1500 for thousands"),
        ("1,234.5", "write 1234.5 for thousands"),
        ("10^21", "written 1e21"),
        ("1.5x10^21", "written 1.5e21"),
        ("010", "write 10"),
        ("20:1", "only for tokens per parameter"),
        ("３B", r"FULLWIDTH DIGIT THREE \(U\+FF13\)"),
        ("1e−3", "MINUS SIGN"),
        ("lots", "write 1e21, 143M, 1.5B or 300e6"),
    ],
)
def test_an_error_says_how_to_write_it(text, advice):
    with pytest.raises(InputError, match=advice) as error:
        parse_quantity(text, "--student")
    assert str(error.value).startswith(f"--student: cannot read {text!r}")
    assert "docs/reference/quantities.md" in str(error.value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("26B tokens", "FLOPs"), ("1e21 FLOPs", "params"), ("3 PFLOP/s", "FLOPs"), ("2 tokens", "")],
)
def test_a_unit_must_be_the_one_asked_for(text, unit):
    with pytest.raises(InputError, match=r"x: .* is in .*; this takes"):
        parse_quantity(text, "x", unit)


def test_a_ratio_is_tokens_per_parameter():
    assert parse_tokens("20:1", 1e9, "tokens") == 2e10
    assert parse_tokens("5B", 1e9, "tokens") == 5e9
    assert parse_ratio("20:1", "x") == parse_ratio("20", "x") == parse_ratio(20, "x") == 20
    with pytest.raises(InputError, match="the size is not known"):
        parse_tokens("20:1", None, "tokens")


def test_whole_numbers_are_written_in_full():
    assert parse_count("4096", "x") == parse_count("4.096e3", "x") == parse_count(4096.0, "x") == 4096
    for text in ("4k", "1.5", "010", "1,5"):
        with pytest.raises(InputError, match="x: "):
            parse_count(text, "x")


def test_plain_numbers_may_be_zero_or_negative():
    assert [parse_number(text, "x") for text in ("1e-3", "0", "-2")] == [1e-3, 0, -2]
    for text in ("1k", "0,5", "nan", "1_5"):
        with pytest.raises(InputError, match="x: "):
            parse_number(text, "x")


def test_lists_are_separated_by_commas_that_mean_nothing_else():
    assert parse_list("100M, 300M,1.5B", "x") == (1e8, 3e8, 1.5e9)
    assert parse_list("20,80", "x") == (20, 80)
    assert parse_list("1, 5B", "x") == (1, 5e9)
    assert parse_list("", "x") == ()
    for text in ("1,5B", "0,3e9", "1,000,000", "2,500M", "1,234.5", "1B,,2B"):
        with pytest.raises(InputError, match="x: "):
            parse_list(text, "x")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.2e20, "FLOPs", "3.2e20 FLOPs (0.32 ZFLOP)"),
        (1.42e24, "FLOPs", "1.42e24 FLOPs (1.42 YFLOP)"),
        (1e30, "FLOPs", "1e30 FLOPs"),
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


@given(st.floats(1e-9, 1e30), st.integers(1, 9))
def test_what_is_printed_is_read_back_as_the_same_number(value, digits):
    rounded = float(f"{value:.{digits}g}")
    assert parse_quantity(format_number(value, digits), "x") == rounded
    assert parse_quantity(format_power(value, digits), "x") == rounded
    assert parse_quantity(format_flops(value), "x", "FLOPs") == float(f"{value:.3g}")
    for unit in ("params", "tokens"):
        assert parse_quantity(format_quantity(value, unit), "x", unit) == float(f"{value:.3g}")


@pytest.mark.parametrize(
    ("factor", "text"),
    [(1.0, "1x"), (2.652, "2.7x"), (10.0, "10x"), (199.9, "200x"), (131_072, "130,000x")],
)
def test_factors_are_written_for_people(factor, text):
    assert format_times(factor) == text


def test_factors_beyond_a_million_are_not_told_apart():
    assert format_times(9.4e7) == format_times(math.inf) == "more than 1,000,000x"
    far = plan(Question(student_params=3e8, budget=1e12)).headline
    assert "Extrapolated up to more than 1,000,000x beyond the fitted runs." in far
