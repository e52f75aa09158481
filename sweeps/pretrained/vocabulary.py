"""Whether a teacher and its students speak of the same tokens: the same ids for the same strings."""

from __future__ import annotations

from collections.abc import Mapping

from scaling.errors import InputError

SHOWN = 3
"""Tokens that a message gives as examples."""


def compare(
    teacher: Mapping[str, int],
    students: Mapping[str, int] | int,
    *,
    where: str,
    model: str,
    given: str | None,
) -> None:
    """Refuse a teacher whose tokens are not its students'.

    Args:
        teacher: its ids by token.
        students: theirs, or only how many where that is another number.
        where: the teacher's place in the spec.
        model: the teacher as the spec names it.
        given: ``corpus.tokenizer``, or None if the students' was trained on the corpus.

    Raises:
        InputError: what differs, in size and in strings, and the line that mends it.
    """
    if teacher == students:
        return
    theirs = f"the tokenizer {given}" if given else "the tokenizer trained on the corpus"
    raise InputError(
        f"{where}: {model} does not speak of the students' tokens: {_differences(teacher, students)}; the "
        f"students have {theirs}. A distribution over other tokens cannot be followed; set\n"
        f"    corpus: {{tokenizer: {model}}}"
    )


def _differences(teacher: Mapping[str, int], students: Mapping[str, int] | int) -> str:
    if isinstance(students, int):
        return f"it has {len(teacher):,} of them, the students {students:,}"
    words = []
    if len(teacher) != len(students):
        words.append(f"it has {len(teacher):,} of them, the students {len(students):,}")
    ours = {number: token for token, number in students.items()}
    moved = [(number, token) for token, number in teacher.items() if number in ours and ours[number] != token]
    if moved:
        examples = ", ".join(f"{n} is {t!r}, not {ours[n]!r}" for n, t in sorted(moved)[:SHOWN])
        words.append(f"{len(moved):,} ids stand for other strings ({examples})")
    elif alone := sorted(set(teacher) ^ set(students), key=lambda token: teacher.get(token, 0)):
        words.append(f"they differ by {', '.join(map(repr, alone[:SHOWN]))}{' ...' * (len(alone) > SHOWN)}")
    return " and ".join(words)
