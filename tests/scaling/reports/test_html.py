"""HTML of results for notebooks: structure, escaping, and what is folded away."""

from __future__ import annotations

from xml.etree import ElementTree

from scaling import Calibration, Question, frontier, plan, predict
from scaling.reports.html import html_answer, html_list

RUNS = Calibration.load("busbridge2025-figure1-runs")


def parsed(cell: str) -> ElementTree.Element:
    """Return the tree of a cell, which must be balanced."""
    return ElementTree.fromstring(f"<body>{cell}</body>")


def test_warnings_are_open_and_the_rest_is_folded():
    tree = parsed(html_answer("a < b", ["c & d"], (["way", "loss"], [["<x>", "1"]]), ["! w", "~ r", "- a"]))
    assert [each.text for each in tree.iter("summary")] == ["Ranges", "Assumptions"]
    assert [item.text for item in tree.findall("ul/li")] == ["w"]
    assert [item.text for item in tree.findall("details/ul/li")] == ["r", "a"]
    assert [cell.text for cell in tree.iter("td")] == ["<x>", "1"]
    assert html_list("Notes", ()) == ""


def test_results_are_tables_and_lists():
    """No mark of a note is left as text, and every number of the table is there."""
    question = Question(student_params=1e9, budget=1e21)
    answers = (
        plan(question, RUNS),
        predict(RUNS, student_params=1e9, student_tokens=2e10, teacher_loss=2.2),
        frontier(question, [1e20, 1e21], RUNS),
    )
    for answer in answers:
        tree = parsed(answer._repr_html_())
        assert len(list(tree.iter("table"))) == 1
        assert not [item.text for item in tree.iter("li") if item.text[:2] in ("! ", "~ ", "- ", "\u2022 ")]
        if answer is not answers[0]:
            header, rows = answer.table()
            cells = [cell.text for cell in (*tree.iter("th"), *tree.iter("td"))]
            assert cells == [*header, *(cell for row in rows for cell in row)]
