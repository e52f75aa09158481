"""Constraint on the distribution of a student's weights, by optimal transport after updates.

After Zhong, Sorscher, Lee and Sompolinsky, "A theory of weight distribution-constrained learning" (NeurIPS
2022, arXiv 2206.08933), which is about perceptrons (:mod:`scaling.perceptron`): for a transformer it is an
experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from scaling.errors import InputError
from scaling.perceptron import distributions
from scaling.perceptron.distributions import WeightDistribution
from scaling.perceptron.transport import target_weights
from sweeps.spec.fields import Count, Number
from sweeps.spec.method.interfaces import Hook, Metric
from sweeps.spec.method.method_parts import parts_of

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.model.weight_distribution import Matrices, Place
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import AfterStep, Evaluation, RunSetting, State

ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Matrices of a layer of the ladder's models."""
FIXED_SHAPES: dict[str, Callable[[], WeightDistribution]] = {
    "normal": distributions.normal,
    "laplace": distributions.laplace,
    "uniform": distributions.uniform,
    "binary": distributions.binary,
}
"""Targets without a parameter."""
FAMILIES: dict[str, Callable[[float], WeightDistribution]] = {
    "student-t": distributions.student_t,
    "ternary": distributions.ternary,
    "symmetric-lognormal": distributions.symmetric_lognormal,
}
"""Targets with one: degrees of freedom, fraction of weights that are not 0, s."""


class WeightTransport(Hook):
    """Partial transport of every matrix in a layer towards a distribution of weights.

    Embeddings, gains and biases are left alone, and so is the scale: targets have unit second moment and are
    multiplied by the root mean square of the matrix. It works as well where several processes share a batch
    (each has all weights) and under ``training.compile``; sharded matrices are refused.
    """

    version: ClassVar[str] = "1"
    eta: Number = Field(0.05, ge=0, le=1)
    """Fraction of the way that is gone at a time; at 0 the run is its control's, bit for bit."""
    every: Count = Field(1, ge=1)
    """Optimizer steps from one transport to the next."""
    target: Literal[
        "teacher", "permuted-teacher", "quantiles",
        "normal", "laplace", "uniform", "binary", "student-t", "ternary", "symmetric-lognormal",
    ] = "teacher"  # fmt: skip
    """Distribution: that of the teacher's matrix of the same role at the same relative depth; of another of
    the student's matrices in that sense, in an order drawn by the run's seed, as a control; ``quantiles``; or
    one of :mod:`scaling.perceptron.distributions`."""
    parameter: Number | None = None
    """Parameter of the target: degrees of freedom of ``student-t``, fraction of weights of ``ternary`` that
    are not 0, s of ``symmetric-lognormal``."""
    quantiles: tuple[Number, ...] = ()
    """Quantiles of the target ``quantiles`` at equal distances, ascending, of unit second moment."""
    matrices: tuple[str, ...] = ROLES
    """Matrices of a layer that are moved."""

    @field_validator("matrices")
    @classmethod
    def _of_layers(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if {"embed_tokens", "lm_head"} & set(given):
            raise ValueError("the embedding is tied to the output projection and is not moved; leave it out")
        if not given or set(given) - set(ROLES):
            raise ValueError(f"name some of {', '.join(ROLES)}")
        return given

    def distribution(self) -> WeightDistribution | None:
        """Return the target's distribution; None if each matrix has one of its own, from the teacher.

        Override it for a distribution of your own, whose second moment must be one.
        """
        if self.target in FAMILIES and self.parameter is not None:
            return FAMILIES[self.target](self.parameter)
        made = FIXED_SHAPES.get(self.target)
        return made() if made else None

    def objections(self, method: Method) -> Iterator[str]:
        if (self.parameter is None) == (self.target in FAMILIES):
            have = ", ".join(FAMILIES)
            yield f"parameter: {have} have one each and no other target has; target is {self.target}"
        if bool(self.quantiles) != (self.target == "quantiles"):
            yield f"quantiles: they are given for target: quantiles and for no other; target is {self.target}"
        if self.target == "permuted-teacher" and len(self.matrices) < 2:
            yield "matrices: a single one of a layer leaves nothing to permute; name two or more"
        try:
            if self.quantiles:
                _checked_quantiles(self.quantiles)
            elif found := self.distribution():
                found.checked()
        except InputError as error:
            yield f"target: {error}"

    def initial_state(self, setting: RunSetting) -> State:
        """Return the targets by matrix, or by their number of weights where matrices share one.

        Raises:
            InputError: If the teacher has no matrix of a role that is moved.
        """
        from sweeps.model.device import device
        from sweeps.model.weight_distribution import matrices_of_shape

        moved = self.moved(matrices_of_shape(setting.shape))
        made = self._shared_targets(moved)
        if made is None:
            made = self._teachers_targets(setting, moved)
        return {key: target.to(device()) for key, target in made.items()}

    def after_step(self, run: AfterStep, state: State) -> None:
        from sweeps.model.weight_distribution import check_untied, check_whole, layer_matrices, transport

        if self.eta == 0 or (run.step + 1) % self.every:
            return
        moved = self.moved(layer_matrices(dict(run.student.named_parameters())))
        check_untied(run.student, moved)
        for place, weight in moved.items():
            check_whole(weight, _name(place))
            transport(weight, target_of(place, weight, state), self.eta)

    def moved(self, matrices: Matrices) -> Matrices:
        """Return those of a model's matrices that are moved."""
        return {
            place: each for place, each in matrices.items() if place[1].rpartition(".")[2] in self.matrices
        }

    def _shared_targets(self, moved: Matrices) -> State | None:
        """Return targets by their number of weights; None if each matrix has its own."""
        from sweeps.model.weight_distribution import as_target, resampled

        counts = sorted({weight.numel() for weight in moved.values()})
        if self.quantiles:
            return {str(count): resampled(np.array(self.quantiles), count) for count in counts}
        if found := self.distribution():
            return {str(count): as_target(target_weights(found, count)) for count in counts}
        return None

    def _teachers_targets(self, setting: RunSetting, moved: Matrices) -> State:
        from sweeps.model.weight_distribution import layer_matrices, resampled

        assert setting.models is not None
        theirs = layer_matrices(setting.models.teacher_module.state_dict())
        sources = _same_role(theirs, moved)
        if self.target == "permuted-teacher":
            sources = _permuted(sources, setting.seed)
        return {
            _name(place): resampled(theirs[sources[place]], weight.numel()) for place, weight in moved.items()
        }


class WeightOverlap(Metric):
    """Overlap J of a student's matrices with a Gaussian, and their distance from the target of its hook.

    Columns: ``gaussian_overlap`` (mean over the weights of all layers), ``gaussian_overlap_min`` (of a
    matrix), ``gaussian_overlap_0``, ... (mean of a layer), ``teacher_gaussian_overlap``, and under a
    :class:`WeightTransport` ``target_distance``, W_2 at unit scale.
    """

    version: ClassVar[str] = "1"

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        from sweeps.model.weight_distribution import layer_matrices, overlaps

        own = dict(evaluation.student.named_parameters())
        sizes = {place: weight.numel() for place, weight in layer_matrices(own).items()}
        J = overlaps(own)
        found = {"gaussian_overlap": _mean(J, sizes), "gaussian_overlap_min": min(J.values())}
        for layer in sorted({place[0] for place in J}):
            within = {place: value for place, value in J.items() if place[0] == layer}
            found[f"gaussian_overlap_{layer}"] = _mean(within, sizes)
        theirs = evaluation.models.teacher_module.state_dict()
        if teacher := overlaps(theirs):
            numels = {place: weight.numel() for place, weight in layer_matrices(theirs).items()}
            found["teacher_gaussian_overlap"] = _mean(teacher, numels)
        return found | _target_distance(evaluation)


def target_of(place: Place, weight: Tensor, state: State) -> Tensor:
    """Return the target of a matrix: its own, or that of all matrices with as many weights."""
    own = state.get(_name(place))
    return state[str(weight.numel())] if own is None else own


def _name(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


def _target_distance(evaluation: Evaluation) -> dict[str, float]:
    """Return the mean distance of matrices from the targets of the method's last transport, if it has one."""
    from sweeps.model.weight_distribution import distance, layer_matrices

    method = evaluation.models.step.method
    assert method is not None
    hooks = {name: each for name, each in parts_of(method).hooks.items() if isinstance(each, WeightTransport)}
    if not hooks:
        return {}
    name, hook = list(hooks.items())[-1]
    moved = hook.moved(layer_matrices(dict(evaluation.student.named_parameters())))
    state = evaluation.states[name]
    each = {place: distance(weight, target_of(place, weight, state)) for place, weight in moved.items()}
    return {"target_distance": _mean(each, {place: weight.numel() for place, weight in moved.items()})}


def _mean(values: dict[Place, float], sizes: dict[Place, int]) -> float:
    """Return the mean over weights of a value of each matrix."""
    return float(np.average(list(values.values()), weights=[sizes[place] for place in values]))


def _same_role(theirs: Matrices, moved: Matrices) -> dict[Place, Place]:
    """Return the teacher's matrix of the same role and relative depth for each of the student's.

    Raises:
        InputError: If the teacher has none.
    """
    layers = 1 + max(place[0] for place in moved)
    of_teacher = 1 + max((place[0] for place in theirs), default=-1)
    sources = {(layer, role): (int((layer + 0.5) * of_teacher / layers), role) for layer, role in moved}
    if missing := sorted({role for layer, role in sources.values() if (layer, role) not in theirs}):
        raise InputError(
            f"target: the teacher has no matrix {', '.join(missing)} in its layers, so the student's cannot "
            "follow its distribution; leave them out of matrices, or choose a distribution"
        )
    return sources


def _permuted(sources: dict[Place, Place], seed: int) -> dict[Place, Place]:
    """Return the sources in an order in which none stays at its place: one random cycle."""
    places = list(sources)
    order = np.random.default_rng(seed).permutation(len(places))
    shifted = np.roll(order, 1)
    return {places[to]: sources[places[at]] for to, at in zip(order, shifted, strict=True)}


def _checked_quantiles(quantiles: tuple[float, ...]) -> None:
    if list(quantiles) != sorted(quantiles):
        raise InputError("quantiles must be ascending")
    WeightDistribution.from_weights("quantiles", quantiles).checked()


def _transported(target: str, **options: Any) -> dict[str, Any]:
    """Return a method that transports to a target, four steps at a time, and measures what it has become."""
    hook = {"use": f"{__name__}:WeightTransport", "eta": 0.2, "every": 4, "target": target, **options}
    return {"hooks": [hook], **untransported}


untransported: dict[str, Any] = {"metrics": [{"use": f"{__name__}:WeightOverlap"}]}
"""Forward KL whose weights are measured: the control of the methods below."""
teacher_weights = _transported("teacher")
permuted_weights = _transported("permuted-teacher")
normal_weights = _transported("normal")
laplace_weights = _transported("laplace")
"""J = .981."""
ternary_weights = _transported("ternary", parameter=0.54)
"""J = .900, the most of any ternary distribution."""
lognormal_weights = _transported("symmetric-lognormal", parameter=1.25)
"""J = .77, and .80 at the size of a small matrix, which has no such tails."""
binary_weights = _transported("binary")
"""J = .798."""
sparse_weights = _transported("ternary", parameter=0.0762)
"""J = .600."""
