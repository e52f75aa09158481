"""The laws: published values, the limits they were built for, and exact derivatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fits.datasets import figure1
from scaling import EffectiveTokensLaw, PublishedLaw9, SupervisedLaw
from scaling.laws import coefficients

SUPERVISED = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
SHAPE = {"c0": 2.549, "c1": 522.6, "d1": 1.315, "f1": 0.090, "A": 2243.0, "alpha": 0.321, "beta": 0.637}
PRINTED = PublishedLaw9(**SHAPE, B=24181.0, gamma=0.764)
B100 = PublishedLaw9(**SHAPE, B=2418100.0, gamma=0.764)
SIMPLE = EffectiveTokensLaw(k=1.45596, q=9.17480, eps=0.02530)
CAPACITY = EffectiveTokensLaw(k=1.26143, q=9.77816, eps=0.02351, variant="capacity")
SHARP = EffectiveTokensLaw(k=1.364457, q=10.4942, eps=0.0208390, variant="sharp")
EFFECTIVE = {"simple": SIMPLE, "capacity": CAPACITY, "sharp": SHARP}
LAWS = {"published": B100, "identifiable": B100.eight_coefficients(), **EFFECTIVE}

sizes = st.floats(8, 11).map(lambda x: 10**x)
tokens = st.floats(9, 14).map(lambda x: 10**x)
teachers = st.floats(1.3, 3.5)


@pytest.mark.parametrize(
    ("N", "D", "loss"),
    [
        (1e9, 2e10, 2.374692),
        (7.75e9, 1.55e11, 2.003566),
        (1.43e8, 2.86e9, 2.889188),
        (7.747e9, 5.12e11, 1.932921),
        (1.26e10, 2.52e11, 1.934703),
    ],
)
def test_supervised_anchors(N, D, loss):
    assert SUPERVISED.loss(N, D) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("N", "D", "L_T", "alone", "printed", "b100"),
    [
        (1e9, 2e10, 2.2, 2.374692, 2.316953, 2.336672),
        (3e8, 1e11, 2.2, 2.420071, 2.387639, 2.395506),
        (1e9, 1e12, 2.0, 2.142414, 2.137005, 2.138964),
        (3e9, 1e12, 1.9, 2.000810, 1.996365, 1.998324),
        (1e10, 1e12, 1.75, 1.881970, 1.864367, 1.867783),
        (1.983e8, 3.966e9, 2.4, 2.788903, 2.636806, 2.702307),
        (5.46e8, 1.092e10, 2.2509, 2.514941, 2.423823, 2.458937),
    ],
)
def test_distillation_anchors(N, D, L_T, alone, printed, b100):
    assert SUPERVISED.loss(N, D) == pytest.approx(alone, rel=1e-6)
    assert PRINTED.loss(N, D, L_T, SUPERVISED) == pytest.approx(printed, rel=1e-6)
    assert B100.loss(N, D, L_T, SUPERVISED) == pytest.approx(b100, rel=1e-6)


@pytest.mark.parametrize(
    ("N", "D", "L_T", "loss", "kappa", "sharpness"),
    [
        (1.43e8, 2.88e10, 2.2, 2.580575, 2.482536, 9.463526),
        (5.46e8, 1.22e10, 2.2, 2.428452, 2.310248, 9.741357),
        (1e9, 2e10, 2.0, 2.310964, 1.986254, 10.051004),
        (1.82e9, 3.86e10, 2.5, 2.486577, 2.531524, 10.415793),
        (7.75e9, 5.12e11, 1.8953, 1.938498, 1.706953, 11.615636),
    ],
)
def test_anchors_of_the_sharp_variant(N, D, L_T, loss, kappa, sharpness):
    assert SHARP.loss(N, D, L_T, SUPERVISED) == pytest.approx(loss, rel=1e-6)
    assert SHARP.effective_tokens(N, L_T, SUPERVISED)[0] == pytest.approx(kappa, rel=1e-6)
    assert SHARP.sharpness(N, D, SUPERVISED) == pytest.approx(sharpness, rel=1e-6)


@pytest.mark.parametrize(
    ("law", "fitted", "others"),
    [
        (EffectiveTokensLaw(k=1.45596, q=9.17480, eps=0.02530), 0.00508, 0.00835),
        (EffectiveTokensLaw(k=1.26143, q=9.77816, eps=0.02351, variant="capacity"), 0.00400, 0.01341),
        (EffectiveTokensLaw(k=1.36446, q=10.49422, eps=0.0208392, variant="sharp"), 0.0047791, 0.0067127),
    ],
)
def test_errors_on_figure_1(law, fitted, others):
    """RMS errors, nats/token, on the 328 runs with L_S > 2.3 and the 26 others."""
    runs = figure1()
    error = runs["loss"] - law.loss(runs["params"], runs["tokens"], runs["teacher_loss"], SUPERVISED)
    of_split = (error**2).groupby(runs["split"]).mean() ** 0.5
    assert of_split["fit"] == pytest.approx(fitted, abs=6e-6)
    assert of_split["extrapolation"] == pytest.approx(others, abs=6e-6)


def test_eight_coefficients_are_as_good_as_nine():
    grid = np.meshgrid(np.geomspace(1e8, 1e11, 13), np.geomspace(1e9, 1e14, 16), np.linspace(1.3, 3.0, 18))
    nine = B100.loss(*grid, SUPERVISED)
    eight = B100.eight_coefficients().loss(*grid, SUPERVISED)
    assert np.abs(nine - eight).max() < 0.0025


def test_conversion_to_nine_coefficients_and_back_is_exact():
    eight = B100.eight_coefficients()
    back = eight.nine_coefficients(522.6)
    assert coefficients(back) == pytest.approx(coefficients(B100), rel=1e-12)
    far = eight.nine_coefficients(1e9)  # the limit
    assert far.loss(1e9, 2e10, 2.2, SUPERVISED) == pytest.approx(
        eight.loss(1e9, 2e10, 2.2, SUPERVISED), rel=1e-7
    )


@given(N=st.floats(3, 15), D=st.floats(3, 18), L_T=st.floats(1.23, 12))
@settings(max_examples=150, deadline=None)
def test_everything_is_finite_everywhere(N, D, L_T):
    for law in LAWS.values():
        found = law.derivatives(10**N, 10**D, L_T, SUPERVISED)
        values = [found.loss, *found.inputs.values(), *found.own.values(), *found.supervised.values()]
        assert all(np.all(np.isfinite(value)) for value in values)


@pytest.mark.parametrize("name", LAWS)
def test_a_student_of_unlimited_size_and_data_copies_its_teacher(name):
    assert LAWS[name].loss(1e15, 1e18, 2.5, SUPERVISED) == pytest.approx(2.5, abs=0.002)


@pytest.mark.parametrize("name", EFFECTIVE)
@pytest.mark.parametrize("N", [1e8, 1e9, 1e10, 1e11])
def test_a_perfect_teacher_is_worth_no_tokens(name, N):
    """kappa -> 1 as L_T -> E, and the student ends where it would alone."""
    alone = SUPERVISED.loss(N, 1e11)
    assert EFFECTIVE[name].loss(N, 1e11, SUPERVISED.E, SUPERVISED) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("name", EFFECTIVE)
def test_supervision_catches_up_with_enough_tokens(name):
    """At 1e14 tokens the best teacher gains less than 0.003 nats."""
    N = np.geomspace(1e8, 1e11, 7)[:, None]
    distilled = EFFECTIVE[name].loss(N, 1e14, np.linspace(1.23, 3, 2000)[None], SUPERVISED).min(axis=1)
    gain = SUPERVISED.loss(N[:, 0], 1e14) - distilled
    assert np.all(gain < 0.003)


def test_the_sharp_maximum_is_sharper_for_better_students():
    """The law lies above floor and teacher, where they meet, by 2^(1/p): less, the better the student."""
    N = np.geomspace(1e8, 1e10, 5)
    sharp, simple = (EFFECTIVE[name] for name in ("sharp", "simple"))
    assert np.all(np.diff(sharp.sharpness(N, 20 * N, SUPERVISED)) > 0)
    assert simple.sharpness(N, 20 * N, SUPERVISED) == simple.q


@pytest.mark.parametrize("name", ["published", "identifiable"])
def test_a_hopeless_teacher_makes_a_hopeless_student(name):
    assert LAWS[name].loss(1e9, 2e10, 10.0, SUPERVISED) == pytest.approx(10.0, rel=1e-9)


@pytest.mark.parametrize("name", EFFECTIVE)
def test_a_hopeless_teacher_is_followed_up_to_the_shrinkage(name):
    gap = LAWS[name].loss(1e9, 2e10, 10.0, SUPERVISED) - 10.0
    assert -0.03 < gap < 0


@pytest.mark.parametrize("name", LAWS)
def test_the_capacity_gap(name):
    """The student's loss falls with the teacher's, reaches a minimum, and rises again."""
    L_T = np.linspace(1.5, 2.8, 400)
    loss = LAWS[name].loss(1.43e8, 2.86e9, L_T, SUPERVISED)
    best = int(np.argmin(loss))
    assert 0 < best < len(L_T) - 1
    assert np.all(np.diff(loss[: best + 1]) <= 0)
    assert np.all(np.diff(loss[best:]) >= 0)
    assert loss[0] > loss[best] + 0.002


@given(N=sizes, D=tokens, L_T=teachers)
@settings(max_examples=150, deadline=None)
def test_more_of_a_student_never_hurts_under_the_published_law(N, D, L_T):
    """The teacher factor depends on Ls, so this is not obvious."""
    Ls = SUPERVISED.loss(N, D)
    if Ls > L_T:
        found = B100.derivatives(N, D, L_T, SUPERVISED)
        assert found.inputs["N_S"] <= 1e-12
        assert found.inputs["D_S"] <= 1e-12


@given(N=sizes, D=tokens)
@settings(max_examples=100, deadline=None)
def test_supervised_loss_falls_with_both(N, D):
    by = SUPERVISED.derivatives(N, D).inputs
    assert by["N"] < 0
    assert by["D"] < 0


def test_with_the_best_teacher_and_unlimited_data_the_student_ends_where_supervision_does():
    """Not built in, and within 1 % for 1e8..1e11 (Busbridge et al., appendix E.6)."""
    N = np.array([1e8, 3e8, 1e9, 3e9, 1e10, 3e10, 1e11])[:, None]
    distilled = B100.loss(N, 1e40, np.linspace(1.221, 3, 4000)[None], SUPERVISED).min(axis=1)
    floor = SUPERVISED.loss(N[:, 0], 1e40)
    np.testing.assert_allclose(distilled / floor - 1, 0, atol=0.01)


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_are_exact(name):
    law = LAWS[name]
    at = {"N_S": 3.1e8, "D_S": 1.7e10, "L_T": 2.31}
    found = law.derivatives(**at, supervised=SUPERVISED)
    h = 1e-5

    def difference(values, which, evaluate):
        up, down = ({**values, which: values[which] * np.exp(s * h)} for s in (1, -1))
        return (evaluate(up) - evaluate(down)) / (2 * h)

    for which in at:
        numeric = difference(at, which, lambda v: law.loss(**v, supervised=SUPERVISED))
        assert found.inputs[which] == pytest.approx(numeric, rel=1e-6, abs=1e-9)
    text = {k: getattr(law, k) for k in ("variant",) if hasattr(law, k)}
    for which in coefficients(law):
        numeric = difference(
            coefficients(law), which, lambda v: type(law)(**v, **text).loss(**at, supervised=SUPERVISED)
        )
        assert found.own[which] == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    for which in coefficients(SUPERVISED):
        numeric = difference(
            coefficients(SUPERVISED), which, lambda v: law.loss(**at, supervised=SupervisedLaw(**v))
        )
        assert found.supervised[which] == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_loss_and_derivatives_say_the_same():
    for law in LAWS.values():
        at = (3e8, 1e10, 2.2, SUPERVISED)
        assert law.loss(*at) == pytest.approx(law.derivatives(*at).loss, rel=1e-14)


def test_arrays_of_coefficients_broadcast():
    k = np.array([[1.0], [1.5]])
    loss = EffectiveTokensLaw(k=k, q=9.0, eps=0.02).loss([1e9, 2e9, 3e9], 1e10, 2.2, SUPERVISED)
    assert loss.shape == (2, 3)
    assert loss[1, 2] == EffectiveTokensLaw(k=1.5, q=9.0, eps=0.02).loss(3e9, 1e10, 2.2, SUPERVISED)


def test_hoffmann_is_the_case_of_gamma_one():
    law = SupervisedLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    assert law.loss(1e9, 2e10) == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 2e10**0.28, rel=1e-12)
