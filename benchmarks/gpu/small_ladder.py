"""A real sweep on the text of this repository, for the time that is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sizes import Sizes

import sweeps

ROOT = Path(__file__).parents[2]


def small_ladder(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Train a ladder of sizes; return a row for each run that was finished, and how the sweep stands."""
    text = folder / "text.txt"
    files = [path for pattern in ("*.md", "*.py") for path in sorted(ROOT.rglob(pattern)) if _is_ours(path)]
    text.write_text("\n\n".join(path.read_text(encoding="utf-8") for path in files))
    precision = {"precision": "bf16"} if sizes.compile else {}
    spec = {
        "name": "first-gpu",
        "corpus": {
            "source": str(text),
            "vocab": sizes.ladder_vocab,
            "context": sizes.ladder_context,
            "heldout": 0.05,
        },
        "training": {"batch_tokens": sizes.ladder_context * 2 ** (5 if sizes.compile else 1), **precision},
        "supervised": [{"params": list(sizes.ladder), "tokens": list(sizes.ladder_tokens)}],
    }
    state = sweeps.load(spec).run(folder / "store", executor="inline", watch=lambda _: None)
    rows = sweeps.results(folder / "store")
    return {
        "summary": state.summary,
        "runs": rows[["params", "tokens", "loss", "loss_se", "seconds"]].to_dict("records"),
    }


def _is_ours(path: Path) -> bool:
    inside = path.relative_to(ROOT).parts
    return not any(part.startswith(".") or part in ("build", "quickstart", "shared") for part in inside)
