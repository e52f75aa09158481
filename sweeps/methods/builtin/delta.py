"""Delta-KD (Cao et al. 2025, arXiv 2509.14526): the student's base, moved as the teacher was tuned."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, ClassVar

from sweeps.spec.method.interfaces import Target
from sweeps.spec.method.method_options import Delta

if TYPE_CHECKING:
    from sweeps.dag.step import Step
    from sweeps.distill.models import Models
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import TargetReader


class DeltaTarget(Target):
    """The shifted base of a student, which three frozen models read."""

    cacheable: ClassVar[bool] = True
    delta: Delta

    def objections(self, method: Method) -> Iterator[str]:
        if method.init is None or method.init.by != "base":
            yield (
                "delta: it moves the student's own base, which must be trained on what the teacher's base "
                "was; set init.by: base"
            )
        if not method.reads_data:
            yield (
                f"delta: it is a target on the data, and text of the {method.source_label} is drawn from no "
                "base; set source.by: data"
            )

    def needs(self, step: Step) -> tuple[Step, ...]:
        return (step.teacher.init,) if step.teacher and step.teacher.init else ()

    def forward_flops(self, step: Step) -> tuple[float, ...]:
        assert step.teacher is not None
        assert step.init is not None
        teacher = step.teacher.shape.forward_flops
        return teacher, teacher, step.init.shape.forward_flops

    def sharing_key(self, step: Step) -> Hashable:
        return self, step.init and step.init.id

    def cache_method(self, method: Method) -> Method | None:
        if method.logits == "online":
            return None
        return type(method)(delta=method.delta, init=method.init, **method.stored_logits)

    def cache_keeps_prelude(self) -> bool:
        return True

    def open(self, models: Models) -> TargetReader:
        from sweeps.distill.delta import Shifted

        teacher = models.online_teacher
        return Shifted(
            models.student_base, models.teacher_base, teacher.teacher, self.delta, teacher.returns_log_probs
        )
