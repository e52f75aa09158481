"""Methods against a matched control: known worths found again, and what a table does not allow."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import TRUTH
from samples_of_methods import methods_sweep

from fits import MethodComparison, compare_methods
from fits.estimation.estimate import Objective, fit_model
from fits.estimation.model import Rows
from fits.methods.multiplier import MethodMultiplier
from fits.methods.multiplier_law import MultiplierModel
from fits.plots.methods import methods_chart
from fits.table.runs import validate
from scaling import InputError

WORTH = {"forward-kl": 1.5, "taid": 1.5, "gkd": 2.2, "reverse-kl": 0.8}
COST = {"forward-kl": 1.3, "taid": 1.3, "gkd": 4.0, "reverse-kl": 1.3}


def of(found: MethodComparison, method: str) -> MethodMultiplier:
    (worth,) = (each for each in found.methods if each.method == method)
    return worth


@pytest.mark.parametrize("on", ["tokens", "params", "compute"])
def test_known_multipliers_are_found_again(on: str) -> None:
    """Without noise; on compute a method's worth is that in tokens over what a token of it costs."""
    table = methods_sweep(WORTH, on=on, cost=COST, seeds=1)
    found = compare_methods(table, "supervised", on, draws=40)
    for method, worth in WORTH.items():
        expected = worth / COST[method] if on == "compute" else worth
        assert of(found, method).multiplier == pytest.approx(expected, rel=0.02)
    assert found.misfit < 1e-3


def test_intervals_cover_and_two_equal_methods_are_not_told_apart() -> None:
    """Seven sweeps with seeds' noise: 90 % intervals of four methods, and taid against forward KL."""
    covered, told = 0, 0
    for seed in range(7):
        table = methods_sweep(WORTH, noise=0.006, common=0.006, seed=seed)
        found = compare_methods(table, "supervised", draws=40)
        covered += sum(each.low <= WORTH[each.method] <= each.high for each in found.methods)
        pair = table[table["method"].isin(["taid", "forward-kl"])]
        (taid,) = compare_methods(pair, draws=20).methods
        told += taid.verdict != "no difference"
        assert 1.01 < taid.minimum_detectable < 1.2
    assert covered >= 23  # of 28
    assert told <= 2  # of 7


def test_pairing_cancels_what_a_configuration_and_seed_share() -> None:
    found = compare_methods(methods_sweep(WORTH, noise=0.001, common=0.03), draws=40)
    assert found.misfit > 0.01
    assert found.control == "forward-kl"
    assert of(found, "gkd").verdict == "better"
    assert of(found, "reverse-kl").verdict == of(found, "supervised").verdict == "worse"
    assert of(found, "taid").verdict == "no difference"
    assert of(found, "taid").minimum_detectable < 1.02
    assert "taid: no significant difference from forward-kl (minimum detectable multiplier 1.0" in str(found)


def test_teachers_are_matched_and_what_they_do_is_not_the_methods() -> None:
    table = methods_sweep(WORTH, teachers={"weak": 1.2, "strong": 2.4}, seeds=1)
    found = compare_methods(table, draws=40)
    assert of(found, "gkd").multiplier == pytest.approx(2.2 / 1.5, rel=0.02)
    assert of(found, "gkd").configurations == 18
    assert (found.pairs.query("method == 'gkd'").groupby("teacher_name").size() == 9).all()
    assert not found.pairs.query("method != 'supervised'")["delta_log_loss"].isna().any()


def test_unmatched_runs_are_left_out_and_said() -> None:
    table = methods_sweep(WORTH)
    table = table[~((table["method"] == "forward-kl") & (table["tokens"] == 4e6))]
    table.loc[table["method"] == "reverse-kl", "teacher"] = "another"
    table.loc[table["method"] == "gkd", "seed"] += 7
    found = compare_methods(table, draws=40)
    assert "6 of 18 runs of taid have no matching run of forward-kl" in found.notes
    assert of(found, "taid").pairs == 12
    assert of(found, "gkd").same_seed == 0
    assert "gkd: 12 pairs have different seeds" in found.notes
    assert of(found, "reverse-kl").verdict == "not compared"
    assert "reverse-kl: not compared: no run of forward-kl has the size, tokens and teacher" in str(found)


def test_few_seeds_and_configurations_are_owned_up_to() -> None:
    one = compare_methods(methods_sweep({"taid": 1.5}, noise=0.005, seeds=1), draws=40)
    assert any(note.startswith("one seed: ") for note in one.notes)
    table = methods_sweep({"taid": 1.5}, noise=0.005)
    single = table[(table["kind"] == "supervised") | (table["tokens"] == 1e6) & (table["params"] == 3e4)]
    found = compare_methods(single, draws=40)
    assert any("1 configuration(s) only" in note for note in found.notes)
    assert of(found, "taid").pairs == 2
    found = compare_methods(single[(single["kind"] == "supervised") | (single["seed"] == 0)], draws=40)
    assert of(found, "taid").verdict == "unknown"
    assert "the variation between seeds is unknown" in str(found)


def test_a_loss_that_no_number_of_tokens_reaches() -> None:
    table = methods_sweep({"taid": 1.5})
    below = 0.98 * TRUTH.loss(table["params"], 1e18)
    table["loss"] = table["loss"].where(table["method"] != "taid", below)
    found = compare_methods(table, draws=40)
    assert of(found, "taid").multiplier == pytest.approx(1000, rel=0.01)
    assert "beyond the range of the control's law" in of(found, "taid").note


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t, {"control": "tiad"}, "no run of the control 'tiad'; the table has supervised, taid"),
        (
            lambda t: t,
            {"multiplier": "money"},
            "multiplier must be one of tokens, params, compute, not 'money'",
        ),
        (lambda t: t[t["kind"] == "supervised"], {}, "every usable run is supervised"),
        (lambda t: t[t["kind"] != "supervised"], {}, "supervised or of forward-kl: name the control"),
        (lambda t: t.drop(columns="loss"), {}, "no column 'loss'"),
        (lambda t: t.drop(columns="method"), {}, "no column 'method' with the method"),
        (lambda t: t.assign(method=t["method"].where(t.index != 1)), {}, "row 2, column 'method'"),
        (lambda t: t.drop(columns="flops"), {"multiplier": "compute"}, "no column 'flops'"),
        (lambda t: t.assign(flops=0.0), {"multiplier": "compute"}, "row 1, column 'flops'"),
        (lambda t: t[t["tokens"] == 1e6], {}, "column 'tokens': every run has 1e.06"),
        (lambda t: t.assign(setting=np.where(t.index % 2, "a", "b")), {}, "2 settings"),
        (
            lambda t: t.assign(tokens=t["tokens"] * np.where(t["kind"] == "supervised", 1.5, 1.0)),
            {},
            "nothing can be compared",
        ),
    ],
)
def test_what_a_table_does_not_allow(change, arguments, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        compare_methods(change(methods_sweep({"taid": 1.5})), **arguments)


def test_the_last_checkpoint_of_a_run_stands_for_it() -> None:
    table = methods_sweep({"taid": 1.5})
    early = table.assign(tokens=table["tokens"] / 2, loss=table["loss"] * 1.1)
    both = compare_methods(pd.concat([early, table], ignore_index=True), draws=20)
    assert both.to_frame().equals(compare_methods(table, draws=20).to_frame())


def test_table_json_and_figure_say_the_same() -> None:
    found = compare_methods(methods_sweep(WORTH, noise=0.004), draws=40)
    frame, plain = found.to_frame(), json.loads(json.dumps(found.to_dict()))
    assert [row["method"] for row in plain["methods"]] == list(frame["method"])
    assert plain["methods"][0]["verdict"] == frame["verdict"].iloc[0] == "better"
    worths, pairs = methods_chart(found).panels
    assert list(worths.y.names) == list(frame["method"])
    assert [not series.hollow for series in worths.series] == list(frame["verdict"] != "no difference")
    assert all(len(series.points[0]) == 18 for series in pairs.series)
    worth, apart = found.plot().axes
    assert "tokens of forward-kl" in worth.get_xlabel()
    assert "nats/token" in apart.get_xlabel()
    assert [label.get_text() for label in worth.get_yticklabels()] == list(frame["method"])


def test_the_shared_laws_derivatives_are_exact() -> None:
    rows = Rows.of(validate(methods_sweep({"taid": 1.5, "gkd": 2.0}, noise=0.01)))
    for scaled in ("N", "D"):
        model = MultiplierModel(rows, (np.arange(len(rows)) % 3).astype(np.intp), scaled)
        theta = model.prior()[0] + 0.1 * np.arange(model.size)
        _, jacobian = model.evaluate_at(theta)
        for i in range(model.size):
            step = 1e-5 * (np.arange(model.size) == i)
            slope = (model.evaluate_at(theta + step)[0] - model.evaluate_at(theta - step)[0]) / 2e-5
            assert jacobian[:, i] == pytest.approx(slope, abs=1e-8)


def test_large_tables_start_from_a_sample() -> None:
    table = methods_sweep({"taid": 1.5}, noise=0.01, seeds=70)
    rows = Rows.of(validate(table))
    model = MultiplierModel(rows, rows.kind, "D")
    assert len(rows) > 1000
    found = fit_model(model, Objective(), starts=4)
    assert np.exp(found.theta[-1]) == pytest.approx(1.5, rel=0.05)
