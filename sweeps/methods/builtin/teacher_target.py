"""The teacher's own distribution: the target of every method that names no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sweeps.spec.method.interfaces import Target

if TYPE_CHECKING:
    from sweeps.distill.models import Models
    from sweeps.spec.method.run_views import TargetReader


class TeacherTarget(Target):
    """Distribution of the teacher after every token, read online or written down once."""

    cacheable: ClassVar[bool] = True

    def open(self, models: Models) -> TargetReader:
        return models.online_teacher
