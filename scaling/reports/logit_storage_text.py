"""Lines of a plan on the storage that the teacher's distributions take."""

from __future__ import annotations

from scaling.calibration.calibration import Calibration
from scaling.costs.hardware import stored_bytes_per_token
from scaling.costs.logit_storage import KINDS, parse_logit_storage
from scaling.errors import InputError
from scaling.planner.plan import Plan
from scaling.planner.question import Question
from scaling.units import format_number, parse_quantity

AT_MOST = {
    "top-p": "at most, as few tokens have the mass, ",
    "sampled": "at most, as tokens drawn again are stored once, ",
}


def logit_storage_lines(
    answer: Plan, question: Question, fitted: Calibration, kept: str, name: str
) -> tuple[str, ...]:
    """Return the lines for what is ``kept``; none if that is empty.

    Args:
        answer: The plan, whose students' tokens are counted.
        question: With the vocabulary, or what it is counted from.
        fitted: The calibration.
        kept: ``full`` or a number of tokens, in 4 bytes a number as Busbridge et al. 2025 (G.4) count, or a
            layout of a sweep's caches (:func:`~scaling.costs.logit_storage.parse_logit_storage`).
        name: The option, for errors.

    Raises:
        InputError: for what is none of these.
    """
    if not kept:
        return ()
    each, note = _bytes_per_token(kept, question.counting(fitted).vocab, name)
    lines = [f"- storing logits: {format_number(each)} bytes/token{note}"]
    lines += [
        f"-   {way.title}: {float(f'{each * way.tokens / 1e12:.3g}'):,g} TB" for way in answer.distillations
    ]
    return tuple(lines)


def _bytes_per_token(kept: str, vocab: int, name: str) -> tuple[float, str]:
    if kept.startswith(KINDS):
        layout = parse_logit_storage(kept, vocab, name)
        compact = layout.kind != "cached" and (layout.kind != "top-k" or layout.bits)
        note = f" ({AT_MOST.get(layout.kind, '')}before compression)" if compact else ""
        return layout.bytes_per_token, note
    top_k = None if kept == "full" else parse_quantity(kept, name, "")
    if top_k is not None and not top_k.is_integer():
        raise InputError(f"{name}: must be a whole number, not {kept!r}")
    return stored_bytes_per_token(vocab, None if top_k is None else int(top_k)), ""
