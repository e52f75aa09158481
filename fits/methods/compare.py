"""What is a method worth? A multiplier on tokens, parameters or compute against a matched control.

Every run of a method is paired with the run of the control that differs in nothing else, so what size,
tokens, teacher and seed do cancels. A law that all runs share (:mod:`fits.methods.shared_law`) says which
multiple of its input would have changed the control's loss as much; around "no difference" that hardly
matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.estimation.bootstrap import bootstrap
from fits.estimation.estimate import Objective, estimate, scalar
from fits.estimation.joint import SUPERVISED
from fits.estimation.model import Rows
from fits.methods.matching import by_method, control_of, matched
from fits.methods.multiplier import CELLS, LEVEL, Worth, unmatched, worth
from fits.methods.shared_law import Shared, SharedLaw
from fits.table.runs import validate
from scaling.errors import InputError
from scaling.laws import SupervisedLaw
from scaling.reports.plan_text import text_table

if TYPE_CHECKING:
    from scaling.figures.figure import Figure

MULTIPLIERS = {"tokens": "D", "params": "N", "compute": "D"}
"""What a multiplier may count, and the input of the law that it multiplies. The size of a student is given:
more compute for it is more tokens."""
UNCHARGED = (
    "compute is each run's column 'flops'; in a sweep's table that leaves out what its teacher cost to train"
)


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """Methods beside one control, the best first: to print, as ``frame()``, ``data()`` or ``plot()``."""

    control: str
    on: str
    """What the multipliers count: tokens, params or compute."""
    methods: tuple[Worth, ...]
    law: SupervisedLaw
    """The law that all runs share, as the control has it."""
    misfit: float
    """What runs differ from that law by, rms of ln loss; pairs do not see it."""
    notes: tuple[str, ...]
    pairs: pd.DataFrame = field(repr=False, compare=False)
    """Every pair: sizes, both losses, ``apart`` (difference of ln loss), ``dearer`` (ratio of FLOPs)."""

    def frame(self) -> pd.DataFrame:
        """One row a method, with its verdict."""
        return pd.DataFrame([asdict(each) | {"verdict": each.verdict} for each in self.methods])

    def data(self) -> dict[str, Any]:
        """Everything but the pairs as plain values for JSON; what is not known is null."""
        rows = self.frame().to_dict("records")
        return {
            "control": self.control,
            "on": self.on,
            "level": LEVEL,
            "methods": [{k: None if v != v else v for k, v in row.items()} for row in rows],
            "law": asdict(self.law),
            "misfit": self.misfit,
            "notes": list(self.notes),
        }

    def plot(self, dark: bool = False) -> Figure:
        """The multipliers with their intervals, and the differences of loss that they come from."""
        from fits.plots.methods import methods_chart
        from scaling.figures.render import draw

        return draw(methods_chart(self), dark)

    def __str__(self) -> str:
        header = ["method", f"x {self.on}", "95 %", "could tell", "nats/token", "pairs", "configs", "seeds"]
        cells = [
            [
                w.method,
                *(_shown(w.multiplier), f"{_shown(w.low)} to {_shown(w.high)}", _shown(w.detectable)),
                *(f"{w.difference:+.4f}", str(w.pairs), str(w.cells), str(w.seeds)),
            ]
            for w in self.methods
            if w.pairs
        ]
        verdicts = [each.sentence(self.on, self.control) for each in self.methods]
        title = f"Multipliers on {self.on} against {self.control}, at the same size, tokens and teacher"
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([title, "", *text_table(header, cells), "", *verdicts, "", *notes]).rstrip()

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False, float_format="{:.3g}".format))


def compare_methods(
    runs: pd.DataFrame,
    control: str | None = None,
    multiplier: str = "tokens",
    *,
    draws: int = 200,
    seed: int = 0,
) -> MethodComparison:
    """What every method of a table is worth against ``control``, with 95 % intervals.

    ``control`` is the method, or "supervised", that others are compared with; by default forward-kl where
    the table has it, else supervised. ``multiplier`` counts "tokens", "params" or "compute". That is what a
    run's column ``flops`` counts, with what the teacher read and wrote and the student wrote, but not the
    teacher's own training; the control is taken to spend it on more tokens for the same student.

    Raises InputError for a table or control that does not allow it.
    """
    if multiplier not in MULTIPLIERS:
        raise InputError(f"a multiplier is on {', '.join(MULTIPLIERS)}, not {multiplier!r}")
    table = by_method(validate(runs))
    control = control_of(table, control)
    _varies(table, "params" if multiplier == "params" else "tokens", multiplier)
    if multiplier == "compute":
        _charged(table)
    found = {way: matched(table, way, control) for way in sorted(table["way"].unique()) if way != control}
    if not any(map(len, found.values())):
        raise InputError(
            f"no run of another method has the size, tokens and teacher of a run of {control}: "
            "nothing can be compared; name another control"
        )
    best, sampled, misfit = _shared(table, found, control, MULTIPLIERS[multiplier], draws, seed)
    charged, rng = multiplier == "compute", np.random.default_rng([seed, 5])
    worths = [
        worth(way, pairs, best, sampled, charged=charged, rng=rng) if len(pairs) else unmatched(way, control)
        for way, pairs in found.items()
    ]
    return MethodComparison(
        control=control,
        on=multiplier,
        methods=tuple(sorted(worths, key=lambda worth: -np.nan_to_num(worth.multiplier, nan=-1.0))),
        law=scalar(best.law),
        misfit=misfit,
        notes=(*_notes(table, found, control), *([UNCHARGED] if charged else [])),
        pairs=pd.concat(found.values(), ignore_index=True),
    )


def _varies(table: pd.DataFrame, column: str, multiplier: str) -> None:
    if table[column].nunique() < 2:
        raise InputError(
            f"column {column!r}: every run has {table[column].iloc[0]:g}, so what more would do is not to be "
            f"seen; a multiplier on {multiplier} needs at least two values"
        )


def _charged(table: pd.DataFrame) -> None:
    if "flops" not in table:
        raise InputError("no column 'flops', the compute of each run with its teacher's part in it")
    empty = table.index[~(table["flops"] > 0.0)]
    if len(empty):
        raise InputError(f"row {empty[0] + 1}, column 'flops': no positive number of FLOPs")


def _shared(
    table: pd.DataFrame, found: dict[str, pd.DataFrame], control: str, scaled: str, draws: int, seed: int
) -> tuple[Shared, Shared, float]:
    """The shared law, draws of it, and the rms residual of ln loss; adds to pairs the group of their control.

    Every method has a multiplier of its own with every teacher, so that none has to hold for all of them.
    """
    groups = table[["way", "taught_by"]].apply(tuple, axis=1)
    first = groups[table["way"] == control].iloc[0]
    number = {group: i for i, group in enumerate(dict.fromkeys([first, *groups]))}
    for pairs in found.values():
        taught = [""] * len(pairs) if control == SUPERVISED else pairs["taught_by"]
        pairs["group"] = [number.get((control, teacher), 0) for teacher in taught]
    rows = Rows.of(table)
    block = table.groupby(["params", "tokens"]).ngroup().to_numpy().astype(np.intp)
    rows = replace(rows, group=block[rows.index])  # what one size and token count miss the law by is shared
    model = SharedLaw(rows, groups.iloc[rows.index].map(number).to_numpy(np.intp), scaled)
    best = estimate(model, Objective(), starts=8, seed=seed)
    sampled = bootstrap(best, draws, method="weights", seed=seed)
    misfit = float(np.sqrt(np.mean(best.residual**2)))
    return Shared.of(model, best.theta[None]), Shared.of(model, sampled.theta), misfit


def _notes(table: pd.DataFrame, found: dict[str, pd.DataFrame], control: str) -> Iterator[str]:
    seeds = table["seed"].nunique(dropna=False)
    if seeds == 1:
        yield "one seed: the scatter between configurations stands in for what seeds do"
    for way, pairs in found.items():
        runs, cells = int((table["way"] == way).sum()), pairs["cell"].nunique()
        if 0 < len(pairs) < runs and way != SUPERVISED:
            yield f"{runs - len(pairs)} of {runs} runs of {way} have no run of {control} to go with"
        if len(pairs) > 1 and cells < CELLS:
            yield f"{way}: {cells} configuration(s) only: the interval holds there, not in general"
        if len(pairs) and not pairs["same_seed"].all():
            yield f"{way}: {int((~pairs['same_seed']).sum())} pairs are of different seeds"
    compared = sum(len(pairs) > 1 for pairs in found.values())
    if compared > 1:
        yield (
            f"of {compared} methods that do nothing, {(1 - LEVEL) * compared:.2g} would be called different "
            "by chance"
        )


def _shown(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "?"
