"""Supervised laws fitted to sweeps that others published, whose tables do not ship.

The tables are read from the directory that the environment variable ``DISTLAW_PUBLIC_SWEEPS`` names, as the
benchmarks read them: converted from the sources' own files, columns renamed, values unchanged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fits.fitting import fit
from fits.table.runs import read_runs
from scaling.calibration.calibration import Calibration
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import ASSUMED, COUNTED
from scaling.errors import InputError

DIRECTORY = "DISTLAW_PUBLIC_SWEEPS"
COMMAND = f"{DIRECTORY}=DIR python -m fits.published"
DRAWS = 400
DIGITS = 7
"""Significant digits of draws, which keep a file at 30 kB."""
SIX_N_D = Architecture(rule="6nd", origins=dict.fromkeys(COUNTED, ASSUMED))

GADRE = "Gadre et al. 2024, Language models scale reliably with over-training (arXiv 2403.08540; MIT)"
GEMSTONES = (
    "McLeish et al. 2025, Gemstones: a model suite for multi-faceted scaling laws (arXiv 2502.06857; MIT)"
)
PORIAN = "Porian et al. 2024, Resolving discrepancies in compute-optimal scaling (arXiv 2406.19146; MIT)"

HEAD_COUNTS = "Parameters include the output layer and not the input embedding; FLOPs are 6ND."
ON_C4 = "The loss is on held-out C4, whatever the models were trained on."
FIVE_TO_640 = "Separate trainings of 5 to 640 tokens per parameter, embeddings counted."
UNTUNED = "Rates and batches are those of one recipe at every size, not tuned by size."


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicSweep:
    """One published table, and what is known of its runs."""

    table: str
    """File without suffix."""
    source: str
    corpus: str
    tokenizer: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


NEOX = "vocabulary of 50,432 (from the table's two counts of parameters); not named there"
UNNAMED = "not named in the table"
COOLED = "Rates are constant, then fall to zero over the last tenth of the tokens."
SWEEPS = {
    "gadre2024-c4": PublicSweep(
        table="gadre2024_c4", source=GADRE, corpus="C4", tokenizer=NEOX, notes=(FIVE_TO_640, HEAD_COUNTS)
    ),
    "gadre2024-redpajama": PublicSweep(
        table="gadre2024_rpj",
        source=GADRE,
        corpus="RedPajama (loss on C4)",
        tokenizer=NEOX,
        notes=(FIVE_TO_640, ON_C4, HEAD_COUNTS),
    ),
    "gadre2024-refinedweb": PublicSweep(
        table="gadre2024_rw",
        source=GADRE,
        corpus="RefinedWeb (loss on C4)",
        tokenizer=NEOX,
        notes=(FIVE_TO_640, ON_C4, HEAD_COUNTS),
    ),
    "gemstones2025-cooldown": PublicSweep(
        table="gemstones2025_cool_end",
        source=GEMSTONES,
        corpus="Dolma",
        tokenizer=UNNAMED,
        notes=(
            COOLED,
            "Widths and depths vary at equal size. Which parameters count is not recorded; FLOPs are 6ND.",
        ),
    ),
    "gemstones2025-constant-rate": PublicSweep(
        table="gemstones2025_hot",
        source=GEMSTONES,
        corpus="Dolma",
        tokenizer=UNNAMED,
        notes=(
            "Widths and depths vary at equal size. Which parameters count is not recorded; FLOPs are 6ND.",
        ),
        warnings=(
            "Checkpoints at a constant rate, without decay: a finished training ends lower "
            "(gemstones2025-cooldown).",
        ),
    ),
    "porian2024-refinedweb": PublicSweep(
        table="porian2024_refinedweb_cosine",
        source=PORIAN,
        corpus="RefinedWeb",
        tokenizer=UNNAMED,
        notes=(
            "IsoFLOP profiles with a cosine that ends with each run; the published exponent of N* is .571.",
            UNTUNED,
            HEAD_COUNTS,
        ),
    ),
    "porian2024-openwebtext2": PublicSweep(
        table="porian2024_owt2_cosine",
        source=PORIAN,
        corpus="OpenWebText2",
        tokenizer=UNNAMED,
        notes=("IsoFLOP profiles with a cosine that ends with each run.", UNTUNED, HEAD_COUNTS),
    ),
}
"""Sweeps by the name of their calibration.

Three tables do not make one: that under Kaplan's rules, which no law of this form describes (5.9 % rms); that
with a short warm-up and no decay (5 %), whose text the cosine runs share; and a thinned copy of the runs that
``besiroglu2024`` is fitted to.
"""


def available() -> bool:
    """Return True if a directory of tables is named."""
    return bool(os.environ.get(DIRECTORY))


def build(name: str, draws: int = DRAWS) -> Calibration:
    """Fit the supervised law to one of ``SWEEPS``.

    Raises:
        InputError: if ``DISTLAW_PUBLIC_SWEEPS`` names no directory with its table.
    """
    sweep = SWEEPS[name]
    path = Path(os.environ.get(DIRECTORY, "")) / f"{sweep.table}.csv"
    if not os.environ.get(DIRECTORY) or not path.is_file():
        raise InputError(f"{name}: set {DIRECTORY} to a directory with {path.name}; the table does not ship")
    made = fit(read_runs(path), draws=draws, name=name, source=sweep.source).calibration
    found = made.provenance
    return replace(
        made,
        draws={
            law: {c: np.array([float(f"{v:.{DIGITS}g}") for v in values]) for c, values in columns.items()}
            for law, columns in made.draws.items()
        },
        architecture=SIX_N_D,
        provenance=replace(
            found,
            command=COMMAND,
            corpus=sweep.corpus,
            tokenizer=sweep.tokenizer,
            notes=(
                *sweep.notes,
                "The runs are not part of this package; coefficients, draws and ranges are.",
            ),
            warnings=(*sweep.warnings, *found.warnings),
        ),
    )
