"""Metrics of every distilled student, by which methods with divergences of their own are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.spec.method.interfaces import Metric

if TYPE_CHECKING:
    from sweeps.spec.method.run_views import Evaluation


class Divergences(Metric):
    """Both KL divergences between student and teacher and the student's entropy, on held-out text."""

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        from sweeps.distill.metrics import measure_divergences

        return measure_divergences(
            evaluation.student, evaluation.models.teacher, evaluation.heldout, evaluation.context
        )


class CrossLikelihood(Metric):
    """Cross-likelihood of generated text: the teacher's of the student's, and the other way round."""

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        from sweeps.distill.metrics import cross_likelihood

        return cross_likelihood(
            evaluation.student, evaluation.models.teacher, evaluation.heldout, evaluation.context
        )
