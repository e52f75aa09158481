"""Ranking of calibrations for a question: by text, tokenizer, size and tokens, and error there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, published
from scaling.calibration.region import FAR, TOO_FAR
from scaling.to_plain import nan_to_none
from scaling.units import format_number, format_times

MOST_DRAWS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationMatch:
    """Fit of one calibration to a question."""

    name: str
    text: bool | None
    """True if its text is the one asked about; None where no text was asked about or is recorded."""
    tokenizer: bool | None
    """True if its tokenizer is the one asked about; None likewise."""
    corpus: str
    outside: float
    """Factor by which size or tokens lie outside its supervised runs; 1 inside, nan where unknown."""
    loss: float
    """nats/token, of direct training."""
    error: float
    """Standard deviation of one run's loss there, relative: of the law on runs it has not seen, and draws;
    nan where the calibration has neither."""
    distils: bool
    """True if it holds a distillation law."""
    warned: bool
    """True if every use of it shows a warning."""

    @property
    def order(self) -> tuple[float, ...]:
        """Sort key: text, tokenizer, distance from the runs beyond a factor of 1.5, warnings, then error."""
        near = 0.0 if self.outside <= FAR else float(np.log(np.nan_to_num(self.outside, nan=TOO_FAR)))
        matched = (float(each is False) for each in (self.text, self.tokenizer))
        error = round(float(np.nan_to_num(self.error, nan=np.inf)), 3)
        return (*matched, near, self.warned, error, not self.distils, self.name != DEFAULT_CALIBRATION)

    def reasons(self) -> str:
        """Return why it stands where it does, in words."""
        known = {True: "the {} asked about", False: "another {}"}
        found = [
            known[each].format(name)
            for name, each in (("text", self.text), ("tokenizer", self.tokenizer))
            if each is not None
        ]
        if np.isnan(self.outside):
            found.append("the range of its runs is not recorded")
        else:
            inside = "size and tokens inside its runs"
            found.append(inside if self.outside == 1 else f"{format_times(self.outside)} outside its runs")
        unknown = "its error is not recorded"
        found.append(unknown if np.isnan(self.error) else f"error of one run {100 * self.error:.1f} %")
        return ", ".join(found + (["it carries a warning"] if self.warned else []))


def rank_calibrations(
    params: float,
    tokens: float,
    text: str = "",
    tokenizer: str = "",
    calibrations: Iterable[Calibration] | None = None,
) -> list[CalibrationMatch]:
    """Rank calibrations by how well they fit a question, the best first.

    A calibration of the text asked about comes before all others, then one of its tokenizer: losses on other
    texts and tokens differ by more than any law errs. Then come those whose runs cover the question, those
    without warnings, and those of the least error there.

    Args:
        params: Parameters of the model asked about.
        tokens: Its training tokens.
        text: Name of the text, or part of it, as ``refinedweb``; any if empty.
        tokenizer: Name of the tokenizer, or part of it; any if empty.
        calibrations: The ones to rank; by default those that ship.

    >>> from scaling.calibration.ranking import rank_calibrations
    >>> rank_calibrations(1e8, 2e9, text="OpenWebText2")[0].name
    'porian2024-openwebtext2'
    """
    every = map(Calibration.load, published()) if calibrations is None else calibrations
    found = [_match(each, params, tokens, text, tokenizer) for each in every]
    return sorted(found, key=lambda match: match.order)


def ranking_table(matches: list[CalibrationMatch]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells, rounded for a person."""
    rows = [
        [
            each.name,
            each.corpus.partition(",")[0] or "not recorded",
            "" if np.isnan(each.outside) else "inside" if each.outside == 1 else format_times(each.outside),
            "" if np.isnan(each.error) else f"{100 * each.error:.1f} %",
            f"{each.loss:.3f}",
            "yes" if each.distils else "no",
        ]
        for each in matches
    ]
    return ["calibration", "text", "its runs", "error", "loss", "distils"], rows


def ranking_data(
    matches: list[CalibrationMatch], params: float, tokens: float, text: str = ""
) -> dict[str, Any]:
    """Return the ranking as plain values for JSON, with the sentences of :func:`ranking_lines`."""
    found: dict[str, Any] = nan_to_none(
        {
            "findings": ranking_lines(matches, params, tokens, text),
            "student_params": params,
            "student_tokens": tokens,
            "calibrations": [asdict(each) | {"reasons": each.reasons()} for each in matches],
        }
    )
    return found


def ranking_lines(matches: list[CalibrationMatch], params: float, tokens: float, text: str = "") -> list[str]:
    """Return the best match with its reasons, and what it cannot answer, in sentences."""
    best = matches[0]
    asked = f"{format_number(params)} parameters, {format_number(tokens)} tokens"
    lines = [f"For {asked}{f', text {text}' if text else ''}: {best.name} fits best: {best.reasons()}."]
    if text and best.text is not True:
        lines.append(f"No calibration is of the text {text!r}: losses on another text differ.")
    if not best.distils:
        capable = next((each for each in matches if each.distils), None)
        other = f"; of those that can, {capable.name} fits best: {capable.reasons()}" if capable else ""
        lines.append(f"{best.name} answers for direct training, and not whether to distil{other}.")
    return lines


def _match(
    calibration: Calibration, params: float, tokens: float, text: str, tokenizer: str
) -> CalibrationMatch:
    law, made = calibration.supervised, calibration.provenance
    loss = np.asarray(law.loss(params, tokens))
    drawn = 0.0
    if calibration.draws:
        sampled = calibration.sampled_supervised(calibration.draw_step(MOST_DRAWS))
        drawn = float(np.std(sampled.loss(params, tokens)))
    run = float(calibration.run_sd("supervised", loss, params, tokens))
    where = calibration.region.outside({"params": params, "tokens": tokens})
    return CalibrationMatch(
        name=calibration.name,
        text=_names(made.corpus, text),
        tokenizer=_names(made.tokenizer, tokenizer),
        corpus=made.corpus,
        outside=max(where.values(), default=float("nan")),
        loss=float(loss),
        error=float(np.hypot(drawn, run) / loss) or float("nan"),
        distils=bool(calibration.distillation),
        warned=bool(made.warnings),
    )


def _names(recorded: str, asked: str) -> bool | None:
    """Return True if what is recorded, remarks in brackets aside, holds the name; None if none is asked."""
    return _letters(asked) in _letters(recorded.partition("(")[0]) if asked else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
