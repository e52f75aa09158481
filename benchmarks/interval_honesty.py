"""Coverage and sharpness of nominal 90 % and 50 % intervals on larger runs that a fit has not seen.

    python benchmarks/interval_honesty.py DIR [--out honesty.jsonl] [--methods bootstrap,default]

DIR holds supervised sweeps as CSV files (columns params, tokens, loss and, for checkpoints, run). Beside
them the 240 runs of Chinchilla, Figure 1 of Busbridge et al. 2025 and the shipped sweep "permissive" are
used. Every table is fitted without its largest runs, and the runs left out are predicted. Reported are the
coverage and the interval score (Gneiting and Raftery 2007, section 6.2) relative to the loss: its width, and
2/alpha of what an interval misses by. Scores are compared as geometric mean ratios; every table and split
weighs the same. Each finished case is a line of ``--out``; a second call runs only what is missing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from interval_methods import METHODS, Forecast

from fits import datasets
from fits.checks.heldout.heldout import Mask
from fits.estimation.model import last_tokens
from fits.published.busbridge2025 import supervised_from_table6
from fits.table.runs import read_runs, validate
from scaling import EffectiveTokensLaw, InputError, SupervisedLaw
from scaling.calibration.calibration import Calibration

LEVELS = (0.9, 0.5)
LAW = SupervisedLaw(E=1.7, A=480.0, B=2085.0, alpha=0.35, beta=0.37)
BENT = SupervisedLaw(E=1.5, A=5e4, B=1e6, alpha=0.55, beta=0.58, gamma=0.45)
TAUGHT = EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025)


@dataclass(frozen=True)
class Case:
    """A table, and which of its rows are predicted from the others."""

    family: str
    table: str
    split: str
    runs: pd.DataFrame
    out: Mask
    supervised: Calibration | None = None

    @property
    def name(self) -> str:
        """The table and the split."""
        return f"{self.table} / {self.split}"


@dataclass(frozen=True)
class Score:
    """Scores of the intervals of one method on one case."""

    method: str
    family: str
    table: str
    split: str
    fitted: int
    predicted: int
    rms: float
    """Root mean square of predicted / observed - 1."""
    seconds: float
    covered: dict[str, float]
    """Share of the rows inside, by nominal level."""
    score: dict[str, float]
    """Mean interval score over the loss, by nominal level."""
    width: dict[str, float]
    """Mean width over the loss, by nominal level."""


def largest(measure: np.ndarray, used: Mask, share: float) -> Mask:
    """Mark the largest ``share`` of the rows, at most half of them; ties go together."""
    threshold = float(np.quantile(measure[used], 1 - share))
    out = used & (measure >= threshold * (1 - 1e-9))
    return out if out.sum() <= used.sum() / 2 else used & (measure > threshold * (1 + 1e-9))


def supervised_cases(family: str, name: str, runs: pd.DataFrame) -> Iterator[Case]:
    """Leave out the dearest 20 %, the dearest 50 % and the largest sizes of a supervised sweep."""
    used = (runs["excluded"] == "").to_numpy()
    N = runs["params"].to_numpy(np.float64)
    C = N * last_tokens(runs)
    for split, measure, share in (
        ("dearest 20 %", C, 0.2),
        ("dearest 50 %", C, 0.5),
        ("largest sizes", N, 0.2),
    ):
        yield Case(family, name, split, runs, largest(measure, used, share))


def public_cases(directory: Path) -> Iterator[Case]:
    """Supervised sweeps of the directory, a family being what stands before the year in a file's name."""
    chinchilla = datasets.chinchilla().sort_values("loss").iloc[:-5].reset_index(drop=True)
    yield from supervised_cases("chinchilla", "chinchilla", chinchilla)
    for path in sorted(directory.glob("*.csv")):
        family = path.stem.split("20")[0]
        yield from supervised_cases(family, path.stem, read_runs(path))


def figure1_cases() -> Iterator[Case]:
    """Splits of the 354 distillations of Figure 1, under the supervised law that the paper prints."""
    runs, law = validate(datasets.figure1()), supervised_from_table6(400)
    N, D, L_T = (runs[column].to_numpy(np.float64) for column in ("params", "tokens", "teacher_loss"))
    splits = {
        "weak to strong teachers": L_T <= 2.1,
        "strong to weak teachers": L_T >= 2.3,
        "over 20B tokens": D >= 20e9,
        "extrapolation": (runs["split"] != "fit").to_numpy(),
        "N > 2B": N > 2e9,
    }
    for split, out in splits.items():
        yield Case("figure 1", "figure 1", split, runs, out, law)


def permissive_cases() -> Iterator[Case]:
    """Splits of the shipped sweep of small models, supervised and distilled."""
    runs = validate(datasets.permissive())
    used, taught = (runs["excluded"] == "").to_numpy(), (runs["kind"] == "distillation").to_numpy()
    N, D = runs["params"].to_numpy(np.float64), runs["tokens"].to_numpy(np.float64)
    L_T = runs["teacher_loss"].to_numpy(np.float64)
    splits = {
        "dearest 20 %": largest(N * D, used, 0.2),
        "dearest 50 %": largest(N * D, used, 0.5),
        "two largest sizes": used & (N > 1.2e5),
        "over 2M tokens": used & (D > 2.2e6),
        "best teachers": used & taught & (np.quantile(L_T[taught], 0.3) >= L_T),
        "weakest teachers": used & taught & (np.quantile(L_T[taught], 0.7) <= L_T),
    }
    for split, out in splits.items():
        yield Case("permissive", "permissive", split, runs, out)


def simulated_cases(tables: int = 6) -> Iterator[Case]:
    """Sweeps of two known laws with noise of 0.3, 1 and 2 %, of 16 to 100 runs."""
    designs = [(law, n, noise) for law in (LAW, BENT) for n, noise in ((4, 0.003), (6, 0.01), (10, 0.02))]
    for i, (law, n, noise) in enumerate(designs):
        for seed in range(tables):
            rng = np.random.default_rng([i, seed])
            N, D = np.meshgrid(np.geomspace(1e7, 1e9, n), np.geomspace(3e8, 3e10, n))
            loss = law.loss(N, D) * np.exp(noise * rng.standard_normal(N.shape))
            runs = validate(pd.DataFrame({"params": N.ravel(), "tokens": D.ravel(), "loss": loss.ravel()}))
            yield from supervised_cases("simulated", f"simulated {i}.{seed}", runs)


def judge(case: Case, method: Callable[..., Forecast], name: str, draws: int) -> Score:
    """Fit the rows that are not left out, and score the intervals of those that are."""
    began = time.process_time()
    kept = case.runs[~case.out].reset_index(drop=True)
    left = case.runs[case.out & (case.runs["excluded"] == "").to_numpy()]
    forecast = method(kept, left, case.supervised, draws)
    observed = left["loss"].to_numpy(np.float64)
    covered, score, width = {}, {}, {}
    for level in LEVELS:
        low, high = forecast.interval(level)
        miss = np.maximum(low - observed, 0) + np.maximum(observed - high, 0)
        covered[f"{level:g}"] = float(np.mean(miss == 0))
        width[f"{level:g}"] = float(np.mean((high - low) / observed))
        score[f"{level:g}"] = float(np.mean((high - low + 2 / (1 - level) * miss) / observed))
    rms = float(np.sqrt(np.mean((forecast.center / observed - 1) ** 2)))
    spent = time.process_time() - began
    return Score(
        name, case.family, case.table, case.split, len(kept), len(left), rms, spent, covered, score, width
    )


def summary(scores: pd.DataFrame, baseline: str = "bootstrap") -> str:
    """Coverage by family, and score ratios to the baseline, as text."""
    lines = []
    for method, mine in scores.groupby("method", sort=False):
        base = scores[scores["method"] == baseline].set_index(["table", "split"])
        lines += ["", f"{method}: {len(mine)} cases, {mine['seconds'].sum():.0f} CPU s"]
        lines.append(
            f"{'family':<14}{'cases':>6}"
            + "".join(
                f"{h:>12}"
                for h in ("cover 90", "worst 90", "cover 50", "width 90", "score 90 x", "score 50 x", "rms x")
            )
        )
        public = mine[~mine["family"].isin(["figure 1", "permissive", "simulated"])]
        groups = [
            *mine.groupby("family", sort=False),
            ("11 tables", public),
            ("all real", mine[mine["family"] != "simulated"]),
        ]
        for family, rows in groups:
            if not len(rows):
                continue
            beside = base.reindex(pd.MultiIndex.from_frame(rows[["table", "split"]]))
            ratios = [_ratio(rows[c], beside[c]) for c in ("score 0.9", "score 0.5", "rms")]
            cells = [rows["covered 0.9"].mean(), rows["covered 0.9"].min(), rows["covered 0.5"].mean()]
            cells += [float(np.exp(np.log(rows["width 0.9"]).mean())), *ratios]
            lines.append(f"{family:<14}{len(rows):>6}" + "".join(f"{c:>12.3f}" for c in cells))
    return "\n".join(lines)


def _ratio(mine: pd.Series[float], base: pd.Series[float]) -> float:
    return float(np.exp(np.mean(np.log(mine.to_numpy()) - np.log(base.to_numpy()))))


def flat(score: Score) -> dict[str, object]:
    """One level of keys, for a line of the results."""
    record = asdict(score)
    for group in ("covered", "score", "width"):
        record |= {f"{group} {level}": value for level, value in record.pop(group).items()}
    return record


def main() -> None:
    """Run the cases that are missing, and print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, default=Path("honesty.jsonl"))
    parser.add_argument("--methods", default="bootstrap,default")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--details", action="store_true", help="print every case")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    seen = {(record["method"], record["table"], record["split"]) for record in done}
    sources = (public_cases(options.directory), figure1_cases(), permissive_cases(), simulated_cases())
    for case in (case for source in sources for case in source if options.only in case.name):
        for name in options.methods.split(","):
            if (name, case.table, case.split) in seen:
                continue
            try:
                record = flat(judge(case, METHODS[name], name, options.draws))
            except InputError as error:
                print(f"{name}: {case.name} cannot be fitted: {error}")
                continue
            done.append(record)
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
    scores = pd.DataFrame(done)
    scores = scores[scores["method"].isin([*options.methods.split(","), "bootstrap"])]
    if options.details:
        shown = [
            "method",
            "table",
            "split",
            "predicted",
            "rms",
            "covered 0.9",
            "covered 0.5",
            "width 0.9",
            "score 0.9",
        ]
        print(scores[shown].to_string(index=False, float_format="%.4f"))
    print(summary(scores))


if __name__ == "__main__":
    main()
