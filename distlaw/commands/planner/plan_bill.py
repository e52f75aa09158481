"""Hours and dollars of a plan: the device asked for, the bill of every way, and what JSON says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distlaw.options import budget_ends, parse_optional, parse_peak, parse_share, refuse
from scaling.costs.budget import Budget, device_named
from scaling.costs.hardware import UTILISATION, Hardware, hardware
from scaling.errors import InputError
from scaling.planner.plan import Direct, Distillation, Plan
from scaling.reports.plan_text import bill


def given_numbers(
    precision: str | None, mfu: str, count: int | None, price: str, peak: str
) -> dict[str, Any]:
    """Return the numbers of a device that were given, by their options."""
    numbers = {
        "--precision": precision,
        "--mfu": parse_share(mfu, "--mfu"),
        "--count": count,
        "--price": parse_optional(price.removeprefix("$") or price, "--price"),
        "--peak": parse_peak(peak),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def asked_device(gpu: str, budget: str, given: Mapping[str, Any]) -> Hardware | None:
    """Return the device of ``--gpu`` or of the budget, with the user's numbers; None if none is named."""
    named = {name for part in budget_ends(budget) if (name := device_named(part))}
    if not gpu and len(named) != 1:
        refuse(given, "goes with --gpu")
        return None
    try:
        return hardware(
            gpu or named.pop(),
            precision=given.get("--precision"),
            utilisation=given.get("--mfu", UTILISATION),
            count=given.get("--count", 1),
            dollars_per_hour=given.get("--price"),
            peak_flops=given.get("--peak"),
        )
    except InputError as error:
        raise InputError(f"{'--gpu' if gpu else '--budget'}: {error}") from error


def priced_answer(bills: list[dict[str, Any]], spending: list[Budget]) -> dict[str, Any]:
    """Return what JSON says of hours and dollars; nothing where no device counts them.

    ``spending`` is a budget in all units, or the two ends of a range.
    """
    priced: dict[str, Any] = {"bills": bills} if bills else {}
    spent = [budget.to_dict() for budget in spending if budget.hardware]
    return priced | ({"spending": spent if len(spent) > 1 else spent[0]} if spent else {})


def billed(answer: Plan, device: Hardware) -> list[dict[str, Any]]:
    """Device hours and dollars of every way."""

    ways: list[Direct | Distillation] = [*answer.direct, *answer.distillations]
    return [{"way": row["way"], **bill(way, device)} for row, way in zip(answer.rows(), ways, strict=True)]
