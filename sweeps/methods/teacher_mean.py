"""Several teachers as one target: the mean of their distributions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sweeps.spec.fields import Number
from sweeps.spec.method.interfaces import Target

if TYPE_CHECKING:
    from sweeps.dag.step import Step
    from sweeps.distill.models import Models
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import TargetReader


class TeacherMean(Target):
    """Weighted mean of the distributions of a run's teacher and of its ``other_teachers``.

    All of them share the vocabulary of the sweep. A temperature softens the mean, not its terms, so that it
    is the same online and from a cache.
    """

    version: ClassVar[str | None] = "1"
    cacheable: ClassVar[bool] = True
    reads_other_teachers: ClassVar[bool] = True

    weights: tuple[Annotated[Number, Field(gt=0)], ...] = ()
    """Weights of the teachers, the run's own first, of any sum; equal ones if not given."""

    def objections(self, method: Method) -> Iterator[str]:
        count = 1 + len(method.other_teachers)
        if count == 1:
            yield "target: TeacherMean is a mean of several teachers; name the others in other_teachers"
        if self.weights and len(self.weights) != count:
            yield (
                f"target.weights: {len(self.weights)} weights of {count} teachers, the run's own and those "
                "in other_teachers; give one for each"
            )

    def forward_flops(self, step: Step) -> tuple[float, ...]:
        return tuple(teacher.shape.forward_flops for teacher in step.teachers)

    def sharing_key(self, step: Step) -> Hashable:
        return self, tuple(teacher.id for teacher in step.other_teachers)

    def cache_method(self, method: Method) -> Method | None:
        if method.logits == "online":
            return None
        names = ("target", "other_teachers", "logits", "top")
        return type(method)(**{name: getattr(method, name) for name in names})

    def shares(self, count: int) -> tuple[float, ...]:
        """Return the shares of ``count`` teachers in the mean, their sum one."""
        weights = self.weights or (1.0,) * count
        return tuple(weight / sum(weights) for weight in weights)

    def open(self, models: Models) -> TargetReader:
        from sweeps.distill.teacher_mean import MeanOfTeachers

        own = models.online_teacher
        return MeanOfTeachers(models.teachers, self.shares(len(models.teachers)), own.returns_log_probs)
