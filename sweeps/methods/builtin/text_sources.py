"""Text that is there before training: the corpus's own, or what the teacher wrote after its prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from sweeps.spec.method.compatibility import given
from sweeps.spec.method.interfaces import SequenceSource
from sweeps.spec.method.method_options import Source

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep

PROMPTED = ("prompt_tokens", "temperature")
WRITING = ("fraction", "teacher_share", "replay")
"""Options that only text after prompts has, and only that of the student."""


class DataText(SequenceSource):
    """The corpus's own text."""

    is_data: ClassVar[bool] = True
    source: Source

    def objections(self, method: Method) -> Iterator[str]:
        for name in _set(self.source, PROMPTED):
            yield f"source.{name}: text of the data has no prompts and is not written; set source.by"
        yield from unread_by(self.source)


class WrittenText(SequenceSource):
    """Text after prompts of the data; the base of sources whose text models write."""

    source: Source
    writers: ClassVar[str]
    """Name of the writers in messages."""

    def objections(self, method: Method) -> Iterator[str]:
        if method.logits != "online":
            yield (
                f"logits: what a teacher says about the data can be {method.logits}, what it says about text "
                f"of the {self.writers} cannot: it is not written yet; set online"
            )
        if method.taid:
            yield "taid: it sets its pace by how the loss falls on the data; set source.by: data"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        context = sweep.corpus.context
        if (prompt := self.source.prompt(context)) >= context:
            yield (
                f"source.prompt_tokens: prompts of {prompt} tokens leave nothing of a context of {context} "
                "to be written; give fewer, or raise corpus.context"
            )

    def prompt_tokens(self, context: int) -> int:
        return self.source.prompt(context)

    def text_method(self, method: Method) -> Method | None:
        if not self.writes_before:
            return None
        asked = Source(
            by="teacher", prompt_tokens=self.source.prompt_tokens, temperature=self.source.temperature
        )
        return type(method)(source=asked)


class TeacherText(WrittenText):
    """Text that the teacher wrote, once, before training."""

    writes_before: ClassVar[bool] = True
    writers: ClassVar[str] = "teacher"

    def objections(self, method: Method) -> Iterator[str]:
        yield from unread_by(self.source)
        yield from super().objections(method)

    def write(self, models: Models, data: Batches, numbers: Tensor) -> Tensor:
        from sweeps.distill.generation.generated_text import continued

        prompt = self.prompt_tokens(data.context)
        return continued(models.online_teacher, data, numbers, prompt, self.source.temperature)


def unread_by(source: Source) -> Iterator[str]:
    """Yield what is set in ``source`` that only text of the student has."""
    for name in _set(source, WRITING):
        yield f"source.{name}: it is about what the student writes; set source.by: student"


def _set(source: Source, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if given(source, name))
