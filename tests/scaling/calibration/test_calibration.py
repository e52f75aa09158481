import json

import numpy as np
import pytest

from scaling import Calibration, EffectiveTokensLaw, InputError, Provenance, Region, SupervisedLaw
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.laws import coefficients


def calibration(**changes):
    supervised = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
    law = EffectiveTokensLaw(k=1.45596, q=9.1748, eps=0.0253)
    rng = np.random.default_rng(0)
    draws = {
        kind: {name: value * rng.lognormal(0, 0.01, 5) for name, value in coefficients(of).items()}
        for kind, of in {"supervised": supervised, "effective-tokens": law}.items()
    }
    values = {
        "name": "mine",
        "supervised": supervised,
        "distillation": {"effective-tokens": law},
        "draws": draws,
        "region": Region(student_params=(1e8, 1 / 3 * 1e10), runs={"distillation": 3}),
        "residual_sd": {"effective-tokens": 0.005},
        "provenance": Provenance(source="a table", date="2026-11-22", warnings=("careful",)),
    }
    return Calibration(**(values | changes))


def test_a_file_gives_back_the_same_numbers_to_the_last_bit(tmp_path):
    one = calibration()
    two = Calibration.load(one.save(tmp_path / "c.json"))
    assert coefficients(one.supervised) == coefficients(two.supervised)
    assert (one.region, one.provenance, one.architecture) == (two.region, two.provenance, two.architecture)
    assert two.default == "effective-tokens"
    for kind, columns in one.draws.items():
        for name, values in columns.items():
            np.testing.assert_array_equal(values, two.draws[kind][name])
    assert one.to_json() == two.to_json()


def test_draws_evaluate_as_one_law():
    one = calibration()
    losses = one.sampled_law().loss([1e9, 2e9, 3e9], 2e10, 2.2, one.sampled_supervised())
    assert losses.shape == (5, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lmfit"}, 'its "format" should be "distlaw-calibration"'),
        ({"format_version": 4}, "format_version is 4; this version of distlaw reads up to 3"),
        ({"format_version": None}, "format_version is None"),
        ({"units": {"loss": "bits"}}, "units are"),
        ({"supervised": {"E": 1.0}}, "c.json: supervised: missing 5 required|missing 4 required"),
        ({"supervised": 7}, "must be an object"),
        ({"distillation": {"astrology": {}}}, "unknown law 'astrology'"),
        ({"distillation": {"effective-tokens": {"k": "big", "q": 1, "eps": 0}}}, r"effective-tokens\.k"),
        ({"default": "published"}, "has no law 'published'"),
        ({"draws": {"supervised": {"E": [1.0]}}}, "wrong or missing"),
        ({"draws": {"supervised": {"E": ["x"]}}}, r"draws\.supervised\.E: must be a list of finite numbers"),
        ({"provenance": {"author": "me"}}, "provenance"),
        ({"provenance": {"source": "x", "date": "y", "warnings": "z"}}, "must be a list of sentences"),
        ({"default": ["published"]}, "default: must name a law"),
        ({"provenance": None}, "provenance: must be an object"),
        ({"region": {"params": "all"}}, r"region\.params: must be \[smallest, largest\]"),
        ({"region": {"params": [2, 1]}}, r"region\.params"),
        ({"region": {"colour": [1, 2]}}, "region"),
        ({"residual_sd": {"supervised": "small"}}, r"residual_sd\.supervised: must be a finite number"),
        ({"residual_sd": {"supervised": -0.1}}, r"residual_sd\.supervised: must be 0 or more"),
        ({"residual_sd": {"supervised": True}}, r"residual_sd\.supervised: must be a finite number"),
        ({"residual_sd": {"supervised": 10**400}}, r"residual_sd\.supervised: must be a finite number"),
        (
            {"distillation": {"effective-tokens": {"k": -1, "q": 1, "eps": 0}}},
            r"effective-tokens\.k: must be pos",
        ),
        (
            {"distillation": {"effective-tokens": {"k": 1, "q": 0, "eps": 0}}},
            r"effective-tokens\.q: must be pos",
        ),
        ({"architecture": {"context": "long"}}, "architecture"),
        ({"architecture": {"context": -1}}, "must be positive"),
    ],
)
def test_foreign_files_are_refused_with_the_field(change, message):
    content = json.loads(calibration().to_json()) | change
    with pytest.raises(InputError, match=message):
        Calibration.from_json(json.dumps(content), "c.json")


def test_nan_text_and_missing_files_are_refused(tmp_path):
    text = calibration().to_json().replace("0.408", "NaN")
    with pytest.raises(InputError, match="holds NaN"):
        Calibration.from_json(text)
    with pytest.raises(InputError, match="not JSON"):
        Calibration.from_json("k = 3")
    with pytest.raises(InputError, match="neither a file nor one of"):
        Calibration.load(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        Calibration.load(tmp_path / "binary")


def test_a_calibration_without_distillation_says_so():
    alone = calibration(distillation={}, draws={}, residual_sd={})
    assert alone.draw_count == 0
    with pytest.raises(InputError, match="supervised law only"):
        alone.law()


@pytest.mark.parametrize("name", ["E", "A", "alpha", "gamma"])
def test_negative_coefficients_and_draws_are_refused(name):
    content = json.loads(calibration().to_json())
    broken = json.loads(calibration().to_json())
    broken["draws"]["supervised"][name][3] = -0.1
    content["supervised"][name] = -0.1
    for each in (content, broken):
        with pytest.raises(InputError, match=rf"supervised\.{name}: must be positive, not -0\.1"):
            Calibration.from_json(json.dumps(each))


def test_unequal_draws_are_refused():
    draws = calibration().draws
    draws["effective-tokens"] = {name: values[:3] for name, values in draws["effective-tokens"].items()}
    with pytest.raises(InputError, match="differ in length"):
        calibration(draws=draws)


def test_what_all_share_nobody_changes():
    one, other = (Calibration.load(DEFAULT_CALIBRATION) for _ in range(2))
    assert one is other
    with pytest.raises(ValueError, match="read-only"):
        next(iter(one.draws["supervised"].values()))[0] = 0.0
