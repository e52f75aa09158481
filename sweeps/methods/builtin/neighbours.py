"""kNN distillation (Yang et al. 2022; DNKD, Zhang et al. 2023, arXiv 2304.10295): votes of like places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sweeps.spec.method.interfaces import Target
from sweeps.spec.method.method_options import Neighbours

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sweeps.dag.step import Step
    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import ShardFormat
    from sweeps.spec.spec import Sweep


class NeighborsTarget(Target):
    """Distribution of the tokens that followed where the teacher's features were like these."""

    neighbours: Neighbours

    def objections(self, method: Method) -> Iterator[str]:
        if method.divergence != "decoupled-kl":
            yield (
                f"neighbours: few tokens get a vote, and {method.divergence_label} asks for all; "
                "set divergence: decoupled-kl, in which those without one teach nothing"
            )
        if method.taid:
            yield "neighbours: taid mixes logits, and tokens without a vote have none"
        if method.logits != "online":
            yield f"logits: neighbours are written down as they are; remove logits: {method.logits}"
        if method.temperature != 1:
            yield "temperature: votes have their own, neighbours.temperature; leave the method's at 1"
        if not method.reads_data:
            yield "neighbours: they are found for the text of the data; set source.by: data"
        if method.delta:
            yield "delta: neighbours vote in the teacher's stead, and nothing is left to move; remove one"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        rules, context = self.neighbours, sweep.corpus.context
        if (size := int(rules.keys) // context * context) <= rules.count:
            yield (
                f"neighbours.keys: {rules.keys:g} tokens are {size} in whole blocks of {context}, too few "
                f"for {rules.count} neighbours; give more"
            )

    def forward_flops(self, step: Step) -> tuple[float, ...]:
        assert step.teacher is not None
        shape = step.teacher.shape
        return (shape.forward_flops + self.neighbours.search_flops(shape.width),)

    def setup_flops(self, step: Step) -> float:
        assert step.teacher is not None
        return step.teacher.shape.forward_flops * self.neighbours.keys

    def cache_method(self, method: Method) -> Method:
        return type(method)(divergence="decoupled-kl", neighbours=self.neighbours)

    def storage(self, method: Method, vocab: int) -> ShardFormat:
        from sweeps.distill.knn import Nearest

        return Nearest(vocab, self.neighbours)

    def writer(
        self,
        models: Models,
        data: Batches,
        storage: ShardFormat,
    ) -> Callable[[NDArray[np.int64]], NDArray[np.void]]:
        from sweeps.distill.knn import Nearest, retriever

        assert isinstance(storage, Nearest)
        return retriever(lambda: models.teacher, data, storage)
