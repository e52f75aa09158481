"""Comparison of the vocabularies of a teacher and its students: the same ids for the same strings."""

from __future__ import annotations

from collections.abc import Mapping

from scaling.errors import InputError

MAX_EXAMPLES = 3
"""Number of tokens that a message gives as examples."""


def require_same_vocabulary(
    teacher: Mapping[str, int],
    students: Mapping[str, int] | int,
    *,
    where: str,
    model: str,
    given: str | None,
) -> None:
    """Reject a teacher whose vocabulary is not that of its students.

    Args:
        teacher: the teacher's ids by token.
        students: the students' ids by token, or only their number if that differs.
        where: the teacher's field in the spec.
        model: the teacher in the spec.
        given: ``corpus.tokenizer``, or None if the students' tokenizer is trained on the corpus.

    Raises:
        InputError: with the differences in size and strings, and the setting that solves it.
    """
    if teacher == students:
        return
    tokenizer = f"the tokenizer {given}" if given else "the tokenizer trained on the corpus"
    raise InputError(
        f"{where}: the vocabulary of {model} is not that of the students: {_differences(teacher, students)}; "
        f"the students have {tokenizer}. A student can only be distilled over the same vocabulary; set\n"
        f"    corpus: {{tokenizer: {model}}}"
    )


def _differences(teacher: Mapping[str, int], students: Mapping[str, int] | int) -> str:
    if isinstance(students, int):
        return f"it has {len(teacher):,} tokens, the students {students:,}"
    words = []
    if len(teacher) != len(students):
        words.append(f"it has {len(teacher):,} tokens, the students {len(students):,}")
    of_students = {number: token for token, number in students.items()}
    moved = [
        (number, token)
        for token, number in teacher.items()
        if number in of_students and of_students[number] != token
    ]
    if moved:
        examples = ", ".join(f"{n} is {t!r}, not {of_students[n]!r}" for n, t in sorted(moved)[:MAX_EXAMPLES])
        words.append(f"{len(moved):,} ids are other strings ({examples})")
    elif alone := sorted(set(teacher) ^ set(students), key=lambda token: teacher.get(token, 0)):
        words.append(
            "they differ by "
            f"{', '.join(map(repr, alone[:MAX_EXAMPLES]))}{' ...' * (len(alone) > MAX_EXAMPLES)}"
        )
    return " and ".join(words)
