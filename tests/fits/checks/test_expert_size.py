"""Mixtures of experts: laws in active or total parameters, by the runs that they predict unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fits
from fits.checks.design import table_notes
from scaling import Calibration, InputError, Question, SupervisedLaw, plan

TRUTH = SupervisedLaw(E=1.7, A=420.0, B=2100.0, alpha=0.34, beta=0.37)
ACTIVE = (2e7, 6e7, 2e8, 6e8)
EXPERTS = (1.0, 4.0, 16.0)


def experts(by: str, noise: float = 0.003, ratios: tuple[float, ...] = EXPERTS) -> pd.DataFrame:
    """Return runs of every active size, ratio and token count, whose loss follows one of the sizes."""
    rng = np.random.default_rng(3)
    active, ratio, tokens = (
        each.ravel() for each in np.meshgrid(ACTIVE, ratios, (2e9, 1e10, 5e10), indexing="ij")
    )
    total = active * ratio
    loss = TRUTH.loss(total if by == "total" else active, tokens)
    return pd.DataFrame(
        {"Active params": active, "n_total_params": total, "tokens": tokens}
        | {"loss": loss * np.exp(noise * rng.standard_normal(len(active)))}
    )


@pytest.mark.parametrize("by", ["active", "total"])
def test_the_size_that_made_the_losses_is_found(by: str, tmp_path: Path) -> None:
    found = fits.fit(experts(by), draws=20, starts=4, held_out=False)
    assert found.size is not None and found.size.size == by
    other = "total" if by == "active" else "active"
    assert found.size.errors[other] > 3 * found.size.errors[by]
    assert any(
        note.startswith(f"sizes are {by} parameters: the supervised law misses") for note in found.notes
    )
    assert found.to_dict()["size"]["size"] == by
    assert found.supervised.loss(1e9, 2e10) == pytest.approx(float(TRUTH.loss(1e9, 2e10)), rel=0.01)
    made = Calibration.load(found.calibration.save(tmp_path / "made.json"))
    assert made.size == by
    assert made.region.params == ((2e7, 6e8) if by == "active" else (2e7, 16 * 6e8))
    answer = plan(Question(student_params=1e9, budget=1e20), made)
    if by == "active":
        assert answer.asked.endswith("; sizes are active parameters of mixtures of experts")
        assert made.architecture.active_share == 1.0
    else:
        assert answer.asked.endswith(
            "; sizes are total parameters of mixtures of experts, of which 25 % are active and cost FLOPs"
        )
        assert made.architecture.active_share == 0.25  # the median of 1, 1/4 and 1/16
    (direct,) = answer.direct
    active = 1e9 * made.architecture.active_share
    dense = replace(made.architecture, active_share=1.0)
    assert direct.training_flops == pytest.approx(1e20)
    assert direct.tokens == pytest.approx(float(1e20 / dense.training_flops(active)))


def test_an_open_size_and_a_teacher_are_charged_by_active_parameters() -> None:
    found = fits.fit(experts("total"), draws=20, starts=4, held_out=False, size="total").calibration
    answer = plan(Question(budget=1e20), found)
    (direct,) = answer.direct
    F = found.architecture.forward_flops(direct.params)
    assert 3 * F * direct.tokens == pytest.approx(1e20)
    assert found.architecture.params_for_flops(F) == pytest.approx(direct.params)


def test_what_nothing_can_tell_apart_stays_in_active_parameters() -> None:
    one = fits.fit(experts("active", ratios=(8.0,)), draws=20, starts=4, held_out=False)
    assert one.size is not None and one.size.size == "active"
    assert "no run tells them apart" in one.size.reason
    asked = fits.fit(experts("active", ratios=(8.0,)), draws=20, starts=4, held_out=False, size="total")
    assert asked.calibration.architecture.active_share == 0.125
    again = fits.validate(asked.table)  # as its own table it is read anew, in active parameters
    assert np.array_equal(again["params"], again["active_params"])


def test_active_parameters_alone_are_sizes() -> None:
    table = fits.validate(experts("active").drop(columns="n_total_params"))
    assert np.array_equal(table["params"], table["active_params"])
    assert "FLOPs follow from active_params" in table_notes(table)
    with pytest.raises(
        InputError, match="size = total applies to tables with columns active_params and total"
    ):
        fits.fit(table, size="total")
    with pytest.raises(InputError, match="size must be 'auto', 'active' or 'total'"):
        fits.fit(experts("active"), size="both")


def test_a_column_of_sizes_beside_them_is_said_to_be_unused_unless_it_is_mapped() -> None:
    both = experts("active").assign(params=1e6)
    read = fits.validate(both)
    assert np.array_equal(read["params"], read["active_params"])
    assert any(note.startswith("not used: column 'params'") for note in table_notes(read))
    mapped = fits.validate(both, {"N": "params"})
    assert (mapped["params"] == 1e6).all() and (fits.validate(mapped)["params"] == 1e6).all()
    dense = fits.validate(experts("active").drop(columns="Active params").assign(params=1e6))
    assert (dense["params"] == 1e6).all()  # a dense table that lists total parameters too


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"Active params": None},
            r"column 'n_total_params' .*gives total parameters alone.*--map N=n_total_params",
        ),
        ({"Active params": 1e12}, r"row 1: active_params \(1e\+12\) exceeds total_params \(2e\+07\)"),
        (
            {"n_total_params": np.nan},
            r"row 1, .*n_total_params.*: it is empty, and every row needs active and",
        ),
    ],
)
def test_inconsistent_sizes_are_refused(change: dict[str, object], message: str) -> None:
    frame = experts("active")
    for column, value in change.items():
        if value is None:
            frame = frame.drop(columns=column)
        else:
            frame.loc[0, column] = value
    with pytest.raises(InputError, match=message):
        fits.validate(frame)
