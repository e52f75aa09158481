"""A student that begins as a copy of its teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from scaling.errors import InputError
from sweeps.spec.method.interfaces import InitialWeights

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import RunSetting


class TeacherWeights(InitialWeights):
    """The teacher's weights, for students of its shape."""

    def objections(self, method: Method) -> Iterator[str]:
        if method.init:
            yield "initial_weights: init trains the weights that the run begins with; remove one"

    def weights(self, setting: RunSetting, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        assert setting.models is not None
        theirs = {
            name: weight.detach() for name, weight in setting.models.teacher_module.state_dict().items()
        }
        own = {name: tuple(weight.shape) for name, weight in drawn.items()}
        if own != {name: tuple(weight.shape) for name, weight in theirs.items()}:
            raise InputError(
                "initial_weights: the teacher's weights have other shapes than this student's; ask for a "
                "student of the teacher's size"
            )
        return theirs
