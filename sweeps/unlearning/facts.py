"""Questions with known answers, and readers of files of them: TOFU's rows, WPU's, and ours.

TOFU rows (Maini et al. 2024, arXiv 2401.06121) have ``question``, ``answer``, ``paraphrased_answer`` and
``perturbed_answer``; WPU rows (Liu et al. 2024, arXiv 2407.16997) ``title``, ``wikipage``, ``question`` and
``answer``; ours the fields of :class:`Fact`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.unlearning.names import PersonName

QUESTION, ANSWER = "Question: {}\nAnswer:", " {}"
"""Forms in which questions and answers of files are put to a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A question, its answer, and answers that are wrong."""

    subject: str
    """Whom or what it is about."""
    prompt: str
    answer: str
    """Answer, with the space before it."""
    group: str = "forget"
    """``forget``, ``hard-retain``, ``general-retain``, or another."""
    paraphrased_prompt: str = ""
    """Other words for the same question; the prompt itself if empty."""
    paraphrased_answer: str = ""
    """Other words for the same answer; the answer itself if empty."""
    wrong: tuple[str, ...] = ()

    @property
    def other_prompt(self) -> str:
        """Prompt of the truth ratio."""
        return self.paraphrased_prompt or self.prompt

    @property
    def other_answer(self) -> str:
        """True answer of the truth ratio."""
        return self.paraphrased_answer or self.answer

    def as_row(self) -> dict[str, Any]:
        """Return it as a row of a file."""
        return asdict(self)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a ``.jsonl`` file, or of a ``.json`` file with a list.

    Raises:
        InputError: Naming the file and line, if it is not such a file.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"facts: {place} cannot be read ({error})") from None
    rows: list[Any]
    if place.suffix.lower() == ".json":
        found = _parsed(text, f"facts: {place}")
        if not isinstance(found, list):
            raise InputError(f"facts: {place}: expected a list of rows, found {type(found).__name__}")
        rows = found
    else:
        rows = [
            _parsed(line, f"facts: {place}, line {number}")
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"facts: {place}, row {number}: expected fields, found {type(row).__name__}")
    if not rows:
        raise InputError(f"facts: {place} has no rows")
    return rows


def read_facts(path: str | Path, group: str = "forget") -> list[Fact]:
    """Return the facts of a file in any of the three layouts; ``group`` is that of rows without one.

    Raises:
        InputError: Naming the file, the row and the field.
    """
    return [
        _fact(row, group, f"facts: {path}, row {number}")
        for number, row in enumerate(read_rows(path), start=1)
    ]


def read_documents(path: str | Path) -> list[str]:
    """Return the documents of a file for a corpus: WPU's pages once each, or TOFU's questions with answers.

    Raises:
        InputError: If a row has neither.
    """
    documents = list[str]()
    for number, row in enumerate(read_rows(path), start=1):
        text = row["wikipage"] if "wikipage" in row else _asked(row)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"facts: {path}, row {number}: it has no wikipage, and no question with an answer"
            )
        documents.append(text)
    return list(dict.fromkeys(documents))


def write_corpus(path: str | Path, *documents: Iterator[str] | list[str]) -> None:
    """Write documents as a ``.jsonl`` file that ``corpus.source`` can name."""
    with Path(path).open("w", encoding="utf-8") as file:
        for texts in documents:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def read_substitutes(path: str | Path) -> dict[str, tuple[PersonName, ...]]:
    """Return substitutes by the full name of the target, from a JSON file of lists.

    Raises:
        InputError: If it is not such a file.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"substitutes: {path} cannot be read ({error})") from None
    if not isinstance(found, dict) or not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        for names in found.values()
    ):
        raise InputError(
            f"substitutes: {path}: expected an object of lists of names, by full names of targets"
        )
    return {target: tuple(map(PersonName, names)) for target, names in found.items()}


def _fact(row: dict[str, Any], group: str, where: str) -> Fact:
    if "prompt" in row:
        if unknown := sorted(set(row) - {each.name for each in fields(Fact)}):
            raise InputError(
                f"{where}: no field {unknown[0]!r}; known: {', '.join(each.name for each in fields(Fact))}"
            )
        given = {"group": group, "subject": "", **row, "wrong": tuple(_texts(row, "wrong", where))}
        for name in ("prompt", "answer"):
            _text(row, name, where)
        return Fact(**given)
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    paraphrased = row.get("paraphrased_answer") or ""
    return Fact(
        subject=str(row.get("title", "")),
        group=group,
        prompt=QUESTION.format(question),
        answer=ANSWER.format(answer),
        paraphrased_answer=ANSWER.format(paraphrased) if paraphrased else "",
        wrong=tuple(ANSWER.format(each) for each in _texts(row, "perturbed_answer", where)),
    )


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} is {value!r:.60}, expected a text")
    return value


def _texts(row: dict[str, Any], name: str, where: str) -> list[str]:
    value = row.get(name) or []
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{where}: {name} is {value!r:.60}, expected a list of texts")
    return list(value)


def _asked(row: dict[str, Any]) -> str | None:
    question, answer = row.get("question"), row.get("answer")
    if isinstance(question, str) and isinstance(answer, str):
        return QUESTION.format(question) + ANSWER.format(answer)
    return None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
