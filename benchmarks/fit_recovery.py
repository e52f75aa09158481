"""Error of fits relative to the Cramer-Rao bound.

    python benchmarks/fit_recovery.py [--sweeps 200]

For the designs of ``fit_coverage``, the root mean square error of predicted losses at 10 and 100 times the
largest compute is divided by the Cramer-Rao bound of the design (no unbiased fit can do better), and the
regret of what the fit recommends is measured under the truth.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from fit_coverage import DESIGNS, Design

from fits.estimation.joint import fit_laws
from fits.estimation.model import Rows
from fits.table.runs import validate
from scaling import SupervisedLaw
from scaling.calibration.calibration import Calibration, Region
from scaling.calibration.provenance import Provenance
from scaling.costs.scenarios import BOTH
from scaling.laws import DistillationLaw
from scaling.planner.planner import plan
from scaling.planner.question import Question

FACTORS = (10, 100)


def losses(design: Design, supervised: SupervisedLaw, distilled: DistillationLaw) -> np.ndarray:
    """ln of the supervised and the distilled loss at each factor of compute; (..., 2 * factors)."""
    found = []
    for factor in FACTORS:
        N, D = design.target(factor)
        L_T = 0.97 * design.supervised.loss(N, D)
        found += [supervised.loss(N, D), distilled.loss(N, D, L_T, supervised)]
    return np.log(np.stack([np.ravel(value) for value in found], axis=-1))


def bound(design: Design) -> np.ndarray:
    """The Cramer-Rao bound of :func:`losses`, as standard deviations of ln(loss)."""
    noiseless = Design(**{**vars(design), "noise": 0.0})
    rows = Rows.of(validate(noiseless.runs(np.random.default_rng(0))))
    model = design.recipe.model(rows, design.law, None)
    assert model.distillation_coordinates is not None
    own = model.distillation_coordinates.theta(design.distilled)  # type: ignore[attr-defined]
    theta = (
        np.append(model.supervised_coordinates.theta(design.supervised), own) - model.fixed_values
    ) @ model.tie_matrix
    assert np.allclose(model.evaluate_at(theta)[0], model.observed, atol=1e-9)
    jacobian = model.evaluate_at(theta)[1] / design.noise
    steps = np.concatenate([np.eye(model.size), -np.eye(model.size)]) * 1e-5
    supervised, distilled = model.laws(theta + steps)
    assert distilled is not None
    moved = losses(design, supervised, distilled)
    gradient = (moved[: model.size] - moved[model.size :]) / 2e-5
    return np.sqrt(np.sum(gradient * np.linalg.solve(jacobian.T @ jacobian, gradient), axis=0))


def regret(
    design: Design, supervised: SupervisedLaw, distilled: DistillationLaw, factor: int
) -> tuple[float, float]:
    """Relative loss given up by the recommended size at this compute, and by the recommended teacher."""
    N, D = design.target(factor)
    sizes = np.geomspace(N / 300, N * 300, 4000)
    true = design.supervised.loss(sizes, N * D / sizes)
    sized = true[np.argmin(supervised.loss(sizes, N * D / sizes))] / true.min() - 1
    teachers = np.linspace(design.supervised.E * 1.02, float(design.supervised.loss(N, D)) * 1.2, 2000)
    truth = design.distilled.loss(N, D, teachers, design.supervised)
    taught = truth[np.argmin(distilled.loss(N, D, teachers, supervised))] / truth.min() - 1
    return float(sized), float(taught)


def planned(
    design: Design, supervised: SupervisedLaw, distilled: DistillationLaw, factor: int
) -> tuple[float, ...]:
    """Return the plan under these laws with the teacher paid in full: student tokens, teacher, its tokens."""
    sizes, tokens = (design.sizes[0], design.sizes[-1]), (design.tokens[0], design.tokens[-1])
    calibration = Calibration(
        name=design.name,
        supervised=supervised,
        distillation={design.law: distilled},
        region=Region(params=sizes, tokens=tokens, student_params=sizes, student_tokens=tokens),
        provenance=Provenance(source="a simulation", date="2026-11-22"),
    )
    N, D = design.target(factor)
    question = Question(student_params=N / 4, budget=12 * N * D, scenarios=(BOTH,))
    (way,) = plan(question, calibration).distillations
    assert way.teacher_tokens is not None
    return way.params, way.tokens, way.teacher_params, way.teacher_tokens


def plan_regret(design: Design, supervised: SupervisedLaw, distilled: DistillationLaw, factor: int) -> float:
    """Relative loss given up, under the truth, by following the planner on the fitted laws."""

    def truth(params: float, tokens: float, teacher_params: float, teacher_tokens: float) -> float:
        L_T = design.supervised.loss(teacher_params, teacher_tokens)
        return float(design.distilled.loss(params, tokens, L_T, design.supervised))

    best = planned(design, design.supervised, design.distilled, factor)
    return truth(*planned(design, supervised, distilled, factor)) / truth(*best) - 1


def main() -> None:
    """Print errors against the bound, and regrets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=200)
    options = parser.parse_args()
    for design in (each for each in DESIGNS if not each.checkpoints):  # the bound takes rows as independent
        began = time.process_time()
        limit, errors, regrets = bound(design), [], []
        truth = losses(design, design.supervised, design.distilled)
        for seed in range(options.sweeps):
            rows = Rows.of(validate(design.runs(np.random.default_rng(seed))))
            found = fit_laws(rows, design.recipe)[design.law]
            errors.append(losses(design, found.supervised, found.distilled) - truth)
            laws = found.supervised, found.distilled
            regrets.append([(*regret(design, *laws, f), plan_regret(design, *laws, f)) for f in FACTORS])
        rms = np.sqrt(np.mean(np.square(errors), axis=0)).ravel()
        print(f"\n{design.name}: {options.sweeps} sweeps, {time.process_time() - began:.0f} CPU s")
        names = [f"{law} at {factor}x" for factor in FACTORS for law in ("L", "L_S")]
        for name, error, least in zip(names, rms, limit, strict=True):
            print(
                f"  {name:<12} rms error {100 * error:.3f} %, bound {100 * least:.3f} %, "
                f"ratio {error / least:.2f}"
            )
        for i, factor in enumerate(FACTORS):
            for j, what in enumerate(("size", "teacher", "plan")):
                values = 100 * np.array(regrets)[:, i, j]
                print(
                    f"  regret of the {what} at {factor}x: median {np.median(values):.4f} %, "
                    f"95th percentile {np.quantile(values, 0.95):.4f} %"
                )


if __name__ == "__main__":
    main()
