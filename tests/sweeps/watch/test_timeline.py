"""The timeline and the graph of a sweep, from what its store holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scaling import InputError
from sweeps.estimate.graph import GraphNode, nodes_of_status
from sweeps.estimate.graph_figure import direct_needs, draw_graph, folded
from sweeps.execute.steps.provenance import STEPS
from sweeps.store.store import Store
from sweeps.watch import timeline
from sweeps.watch.status import StepStatus
from sweeps.watch.timeline import Span, assign_lanes, attempt_spans, timeline_chart


def store_of(place: Path, attempts: dict[str, list[dict[str, object]]]) -> Store:
    store = Store(place)
    steps = [{"id": step, "kind": "distil", "label": step, "needs": [], "flops": 1.0} for step in attempts]
    store.write({"steps": steps}, STEPS)
    for step, told in attempts.items():
        for number, end in enumerate(told, start=1):
            store.write({"started": "2026-01-01T00:00:00+00:00"}, step, "attempts", f"{number:04d}.json")
            part = "end" if "ending" in end else "beat"
            store.write(end, step, "attempts", f"{number:04d}.{part}.json")
    return store


def test_attempts_lie_where_they_ran(tmp_path: Path) -> None:
    """An end says when and how long; what still runs, or was lost, lasts as long as it was heard of."""
    ended = {"ending": "done", "ended": "2026-01-01T00:10:00+00:00", "elapsed": 300.0}
    failed = {"ending": "lost", "ended": "2026-01-01T00:04:00+00:00", "elapsed": 60.0}
    found = attempt_spans(store_of(tmp_path, {"a": [failed, ended], "b": [{"beat": 3, "elapsed": 90.0}]}))
    assert [(each.step, each.start, each.end, each.ended_well) for each in found] == [
        ("b", 0.0, 90.0, True),
        ("a", 180.0, 240.0, False),
        ("a", 300.0, 600.0, True),
    ]
    (panel,) = timeline_chart(found).panels
    assert [series.label for series in panel.series] == ["distil", "ended badly"]
    assert panel.x.label == "minutes since the first step began"
    assert panel.y.names == ("1",)  # one after the other: one lane is enough


def test_lanes_are_as_few_as_run_at_once() -> None:
    spans = [(0, 10), (1, 5), (2, 3), (4, 9), (6, 8), (11, 12)]
    found = [
        Span(step=str(k), kind="distil", start=10.0 * a, end=10.0 * b, ended_well=True)
        for k, (a, b) in enumerate(spans)
    ]
    assert assign_lanes(found) == [0, 1, 2, 2, 1, 0]


def test_of_very_many_attempts_the_number_at_once_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that overlap in the second quarter of the time, and one that ended badly in the last."""
    monkeypatch.setattr(timeline, "MAX_BARS", 2)
    monkeypatch.setattr(timeline, "MAX_POINTS", 4)
    parts = [(0.0, 40.0, True), (20.0, 40.0, True), (60.0, 80.0, False)]
    found = [Span(step="a", kind="distil", start=a, end=b, ended_well=well) for a, b, well in parts]
    chart = timeline_chart(found)
    well, badly = chart.panels[0].series
    assert (well.label, badly.label) == ("distil", "ended badly")
    assert well.y == pytest.approx([1, 2, 0, 0])
    assert badly.y == pytest.approx([0, 0, 0, 1])
    assert well.x == pytest.approx(np.array([10, 30, 50, 70]) / 60)
    assert chart.title == "3 attempts, at most 2 at once"


def test_a_sweep_that_has_not_begun_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no step of this sweep has begun yet"):
        attempt_spans(store_of(tmp_path, {"a": []}))


def test_the_graph_fills_what_is_done() -> None:
    class Told:
        steps = tuple(
            StepStatus(id=name, kind=kind, label=name, needs=needs, flops=1.0, state=state)
            for name, kind, needs, state in [
                ("t", "pretrain", (), "done"),
                ("s", "distil", ("t",), "ready"),
                ("c", "cache", ("t",), "waiting"),
                ("f", "cache-features", ("t",), "waiting"),
                ("p", "trunk", ("c",), "waiting"),
            ]
        )

    nodes = nodes_of_status(Told())  # type: ignore[arg-type]
    assert [node.done for node in nodes] == [True, *[False] * 4]
    figure = draw_graph(nodes)
    (axes,) = figure.axes
    assert axes.get_title() == "5 steps, 1 done (filled)"
    assert [text.get_text() for text in axes.texts] == ["t", "s", "c", "f", "p"]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["pretrain", "distil", "shared prefix", "cache", "cache features"]
    colors = {tuple(each.get_edgecolor()[0]) for each in legend.legend_handles}  # type: ignore[union-attr]
    assert len(colors) == len(names)


def test_long_labels_are_wrapped_and_cut_so_that_the_figure_stays_narrow() -> None:
    names = ["-".join(["a-very-long-method-name"] * count) for count in (1, 3, 20)]
    nodes = [
        GraphNode(
            id=f"{k}", kind="distil", label=f"distil 13.4K on 524K, from 107K on 1.05M, {name}",
            needs=(f"{k - 1}",) if k else (), done=False,
        )
        for k, name in enumerate(names * 2)
    ]  # fmt: skip
    figure = draw_graph(nodes)
    assert figure.get_size_inches()[0] < 6 * 4.5
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert all(len(line) <= 56 for text in texts for line in text.split("\n"))
    assert [text.count("\n") for text in texts[:3]] == [1, 2, 2]
    assert texts[2].endswith("...")


def test_a_graph_of_hundreds_of_steps_is_folded() -> None:
    """Steps that differ in tokens and seed alone are one; groups stand behind what they need."""
    teachers = [
        GraphNode(id=f"t{k}", kind="pretrain", label=f"pretrain 1M on {k}M", needs=(), done=k < 40)
        for k in range(60)
    ]
    students = [
        GraphNode(
            id=f"s{k}", kind="distil", label=f"distil {1 + k % 2}K on {k}M, from 1M on 2M, seed {k}",
            needs=(f"t{k % 60}",), done=k % 2 == 0,
        )
        for k in range(640)
    ]  # fmt: skip
    (axes,) = draw_graph([*teachers, *students]).axes
    assert axes.get_title() == "700 steps in 3 groups, 360 done (filled)"
    assert [text.get_text() for text in axes.texts] == [
        "pretrain 1M: 40 of 60",
        "distil 1K, from 1M: 320 of 320",
        "distil 2K, from 1M: 0 of 320",
    ]
    shown, _ = folded([*teachers, *students])
    assert [node.needs for node in shown] == [(), ("t0",), ("t0",)]
    sizes = [
        GraphNode(id=f"{k}", kind="pretrain", label=f"pretrain {k}K on 1M", needs=(), done=False)
        for k in range(300)
    ]
    assert [node.label for node in folded(sizes)[0]] == ["pretrain"]


def test_labels_of_a_graph_do_not_overlap() -> None:
    nodes = [
        GraphNode(
            id=str(k), kind="distil", label=f"distil {k}K on 1.05M, from 107K on 1.44M",
            needs=(str(k - 10),) if k >= 10 else (), done=False,
        )
        for k in range(70)
    ]  # fmt: skip
    figure = draw_graph(nodes)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


def test_needs_behind_another_need_have_no_line_of_their_own() -> None:
    chain = {
        name: GraphNode(id=name, kind="distil", label=name, needs=needs, done=False)
        for name, needs in {"a": (), "b": ("a",), "c": ("a", "b", "elsewhere")}.items()
    }
    assert direct_needs(chain["c"], chain) == ["b"]


@pytest.mark.parametrize("ended", ["yesterday", None, "0001-01-01"])
def test_an_end_at_no_time_is_named(tmp_path: Path, ended: str | None) -> None:
    store = store_of(tmp_path, {"a": [{"ending": "done", "ended": ended, "elapsed": 1.0}]})
    with pytest.raises(InputError, match=r"a/attempts/0001.end.json: damaged \(ended is .*, expected a time"):
        attempt_spans(store)
