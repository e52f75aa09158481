"""Build the law of private text that ships: ``python -m fits.published.private_kjv``.

It is fitted to the runs of the preset ``private`` and written to ``scaling/private/published``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import scaling.private.law
from fits.methods.private_text import private_text_law
from scaling.calibration.provenance import Provenance
from scaling.private.law import DEFAULT_LAW, PrivateTextLaw

TABLE = Path(__file__).parents[2] / "sweeps" / "presets" / "private.csv"
DIRECTORY = Path(scaling.private.law.__file__).with_name("published")
PRIVATE_TOKENS = 753_750
"""Tokens of the second half of the King James Bible under the preset's vocabulary of 512."""
DRAWS = 400
DIGITS = 6
"""Significant digits of draws."""
PROVENANCE = Provenance(
    source="preset private of distlaw, sweeps/presets/private.csv",
    date="2026-11-30",
    command="python -m fits.published.private_kjv",
    corpus="King James Bible (private half); public model of Shakespeare",
    tokenizer="byte-level BPE, vocabulary 512",
    warnings=(
        "one private text, one public model, students of 4 to 22 thousand parameters on 65,536 tokens: a "
        "direction for other text, not a forecast",
        "its teachers are counts of bigrams, whose contexts 83 % of 1,000 shards had seen; an earlier run "
        "with trigrams, whose contexts 19 % had seen, gained nothing at any budget",
    ),
)


def build(draws: int = DRAWS) -> PrivateTextLaw:
    """Return the law fitted to the shipped runs."""
    law = private_text_law(
        pd.read_csv(TABLE),
        name=DEFAULT_LAW,
        private_tokens=PRIVATE_TOKENS,
        mechanism="confident-gnmax, noise and threshold the best of a simulation on public text",
        provenance=PROVENANCE,
        draws=draws,
    )
    rounded = {
        way: {
            name: np.array([float(f"{each:.{DIGITS}g}") for each in values]) for name, values in found.items()
        }
        for way, found in law.draws.items()
    }
    return replace(law, draws=rounded)


def main() -> None:
    """Write the file."""
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{DEFAULT_LAW}.json"
    build().save(path)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
