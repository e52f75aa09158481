"""Proposal of the next runs: what they are, what they tell, and what deciding now would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fits.checks.supervised_design import counted
from scaling.to_plain import nan_to_none
from scaling.units import format_number, format_power


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposedRun:
    """Run that is proposed."""

    id: str
    kind: str
    params: float
    tokens: float
    seed: int
    teacher_params: float | None
    teacher_tokens: float | None
    teacher_loss: float | None
    """nats/token, where the teacher was measured."""
    projected_sd: float
    """Standard deviation of ln loss that a projected loss has beyond a run's noise; 0 for a measured one."""
    flops: float
    """FLOPs of everything that is not trained yet, its teacher included."""
    with_it: tuple[str, ...]
    """Ids of runs that are trained for it, such as its teacher."""
    sd_before: float
    """Root mean square error of ln loss at the points in question, expected before the run."""
    sd_after: float
    regret_after: float
    """Expected regret once it and those before it are measured, nats/token."""
    coordinate: str
    """Coordinate of the laws that it determines most."""
    coordinate_share: float
    """Share of that coordinate's variance that it removes."""
    option: str
    """Option in question that it determines most."""

    @property
    def label(self) -> str:
        """The run in words."""
        words = f"{format_number(self.params)} on {format_number(self.tokens)}"
        if self.kind == "distillation":
            loss = f" ({self.teacher_loss:.3f})" if self.teacher_loss is not None else ""
            known = "a teacher" if self.teacher_params is None else format_number(self.teacher_params)
            words += f" from {known}{loss}"
            if self.teacher_tokens is not None:
                words += f" on {format_number(self.teacher_tokens)}"
        return words + (", projected" if self.projected_sd else "")

    @property
    def why(self) -> str:
        """Effect of the run on what is asked, in a sentence."""
        lowered = 1 - (self.sd_after / self.sd_before) ** 2 if self.sd_before else 0.0
        return (
            f"lowers the variance in question by {100 * lowered:.0f} % (error {100 * self.sd_before:.2g} to "
            f"{100 * self.sd_after:.2g} %), most for {self.option}; removes "
            f"{100 * self.coordinate_share:.0f} % of the variance of {self.coordinate}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecidedNow:
    """Decision that the runs so far lead to."""

    question: str
    choice: str
    loss: float
    """Predicted, nats/token."""
    regret: float
    """Expected loss above the best option, nats/token."""
    probability: float
    """Probability that no other option is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Next runs, or the advice to stop."""

    runs: tuple[ProposedRun, ...]
    decisions: tuple[DecidedNow, ...]
    regret: float
    """Expected regret of deciding now, nats/token, the mean over decisions."""
    regret_after: float
    """Expected regret once the proposed runs are measured."""
    threshold: float
    """Expected regret at which to stop."""
    stop: bool
    """True if deciding now is expected to cost less than the threshold."""
    measured: int
    """Runs that are known."""
    sigma: float
    """Noise of ln loss of one run."""
    prior: str
    """Prior of the laws: weak, or a sibling's name."""
    notes: tuple[str, ...] = ()
    seed: int = field(default=0, repr=False)

    @property
    def flops(self) -> float:
        """FLOPs of all proposed runs."""
        return sum(run.flops for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        content: dict[str, Any] = nan_to_none(
            asdict(self)
            | {
                "runs": [asdict(run) | {"label": run.label, "why": run.why} for run in self.runs],
                "flops": self.flops,
            }
        )
        return content

    def __str__(self) -> str:
        return "\n".join(proposal_lines(self))


def proposal_lines(proposal: Proposal, why: bool = False) -> list[str]:
    """Return a proposal as lines of text; ``why`` adds what each run tells."""
    lines = [
        f"{counted(proposal.measured, 'run')} known, prior: {proposal.prior}; noise of one run "
        f"{100 * proposal.sigma:.2g} %",
        f"expected regret of deciding now: {proposal.regret:.4f} nats/token, "
        f"threshold {proposal.threshold:g}",
    ]
    for decided in proposal.decisions:
        lines.append(f"  {decided.question}:")
        lines.append(
            f"    {decided.choice}: {decided.loss:.3f} nats/token, the best with probability "
            f"{decided.probability:.2f}, regret {decided.regret:.4f}"
        )
    if proposal.stop:
        lines.append("stop: deciding now is expected to cost less than the threshold")
    elif not proposal.runs:
        lines.append("no run is left to propose")
    else:
        lines += _runs_table(proposal, why)
    return lines + note_lines(proposal.notes)


def note_lines(notes: Sequence[str]) -> list[str]:
    """Return notes as lines of text; those that begin with "! " are warnings."""
    return [f"warning: {note[2:]}" if note.startswith("! ") else f"note: {note}" for note in notes]


def _runs_table(proposal: Proposal, why: bool) -> list[str]:
    rows = [("next", "run", "FLOPs", "error after", "regret after")]
    rows += [
        (
            str(number),
            f"{run.kind}: {run.label}" + (f", seed {run.seed}" if run.seed else ""),
            format_power(run.flops, 3),
            f"{100 * run.sd_after:.2g} %",
            f"{run.regret_after:.4f}",
        )
        for number, run in enumerate(proposal.runs, 1)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if why and number:
            lines.append(f"      {proposal.runs[number - 1].why}")
    lines.append(
        f"together {format_power(proposal.flops, 3)} FLOPs, teachers and shared prefixes that are not "
        f"trained yet included; expected regret after them {proposal.regret_after:.4f}"
    )
    return lines
