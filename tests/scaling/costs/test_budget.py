"""Budgets in FLOPs, device hours and dollars."""

import pytest

from scaling import InputError, hardware
from scaling.costs.budget import device_named, parse_budget

H100_HOUR = 989.4e12 * 0.4 * 3600


@pytest.mark.parametrize(
    ("text", "flops"),
    {
        "1e21": 1e21,
        "3.2e20 FLOPs (0.32 ZFLOP)": 3.2e20,
        "1000 H100-hours": 1000 * H100_HOUR,
        "1k h100 hours": 1000 * H100_HOUR,
        "1000 hours on an H100": 1000 * H100_HOUR,
        "1000 H100 80GB-hrs": 1000 * H100_HOUR,
        "1000 gpu-hours on h100": 1000 * H100_HOUR,
        "1.5 h100-days": 36 * H100_HOUR,
        "8xH100 for 2 weeks": 8 * 336 * H100_HOUR,
        "64 h100s for 10 days": 64 * 240 * H100_HOUR,
        "$249 on h100": 100 * H100_HOUR,
        "US$ 249 on H100": 100 * H100_HOUR,
        "249 USD on h100": 100 * H100_HOUR,
        "$2.49k on h100": 1000 * H100_HOUR,
        "0.249M dollars on h100": 1e5 * H100_HOUR,
        "249$ on h100": 100 * H100_HOUR,
        "USD 249 on h100": 100 * H100_HOUR,
        "1000 H100\u00b7h": 1000 * H100_HOUR,
        "8\u00d7H100 for a week": 8 * 168 * H100_HOUR,
        "8 gpus for 3 days on h100": 8 * 72 * H100_HOUR,
        "10 PF-days": 8.64e20,
        "1 petaflop/s-day": 8.64e19,
    }.items(),
)
def test_a_budget_is_read_as_people_write_it(text, flops):
    assert parse_budget(text).flops == pytest.approx(flops, rel=1e-12)


def test_the_given_device_counts_its_hours_and_dollars():
    device = hardware("h200", utilisation=0.5, dollars_per_hour=4.0)
    hour = 989.4e12 * 0.5 * 3600
    assert parse_budget("10 gpu-hours", device=device).flops == pytest.approx(10 * hour)
    assert parse_budget("$10", device=device).flops == pytest.approx(2.5 * hour)
    assert parse_budget("10 H200-hours", device=device).flops == pytest.approx(10 * hour)
    assert parse_budget(1e21, device=device).hardware is device


def test_the_three_units_agree():
    """A budget given in one unit and echoed in another is the same budget."""
    hours = parse_budget("123 h100-hours")
    dollars = parse_budget(f"${123 * 2.49} on h100")
    assert dollars.flops == pytest.approx(hours.flops, rel=1e-12)
    assert parse_budget("1e21", device=hardware("h100")).describe() == (
        "1e21 FLOPs (1 ZFLOP) = 702 h100-hours = $1.75K"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    {
        "$": "cannot read",
        "$5000": "names no device",
        "1000 GPU hours": "write '1000 GPU hours on h100'",
        "1000 hours": "cannot read",
        "5000 EUR": "no amount of US dollars",
        "€5000 on h100": "no amount of US dollars",
        "1000 H1000-hours": "did you mean h100",
        "1000 tpu-hours": "did you mean tpu-v",
        "$100 on mi300x": "no list price of mi300x",
        "2.5 h100 for 3 days": "whole number",
        "$5,000 on h100": "comma is ambiguous",
        "-5 h100-hours": "positive",
        "1e400 h100-hours": "finite",
        "1e300M h100-hours": "finite",
        "10^21": "is written 1e21",
        "1000 h100-hours on h200": "names h100 and h200",
        "1000 H100h": "cannot read '1000 H100h'; write 1e21, '1000 h100-hours'",
    }.items(),
)
def test_what_is_no_budget_is_refused_with_what_to_write(text, says):
    with pytest.raises(InputError, match=f"^--budget: .*{says}"):
        parse_budget(text, "--budget")


def test_a_text_and_a_device_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match="names h100, but the device given is h200"):
        parse_budget("1000 h100-hours", device=hardware("h200"))
    with pytest.raises(InputError, match="names 64 devices, but 8 are given"):
        parse_budget("64 h100 for 10 days", device=hardware("h100", count=8))


def test_the_device_that_a_text_names():
    assert device_named("10 tpu v5p-hours") == "tpu-v5p"
    assert device_named("64 B200 for 10 days") == "b200"
    assert [device_named(each) for each in ("$5000", "10 gpu-hours", "1e21", "100M")] == [""] * 4
