"""A real sweep on the text of this repository, for the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizes import Sizes

import sweeps
from sweeps.model.device import device

ROOT = Path(__file__).parents[2]


def small_ladder(sizes: Sizes, folder: Path) -> Iterator[dict[str, Any]]:
    """Train a ladder, size by size; yield a row for each run that is finished, and how the sweep stands."""
    text = folder / "text.txt"
    files = [path for pattern in ("*.md", "*.py") for path in sorted(ROOT.rglob(pattern)) if _is_ours(path)]
    text.write_text("\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files))
    for count in range(1, len(sizes.ladder) + 1):
        spec = _spec(sizes, text, sizes.ladder[:count])
        state = sweeps.load(spec).run(folder / "store", executor="inline", watch=lambda _: None)
        rows = sweeps.results(folder / "store")
        yield {
            "summary": state.summary,
            "runs": rows[["params", "tokens", "loss", "loss_se", "seconds"]].to_dict("records"),
        }


def _spec(sizes: Sizes, text: Path, params: tuple[str, ...]) -> dict[str, Any]:
    """Return the spec of the ladder up to a size."""
    on_gpu = device().type == "cuda"
    precision = {"precision": "bf16"} if on_gpu else {}
    corpus = {
        "source": str(text),
        "vocab": sizes.ladder_vocab,
        "context": sizes.ladder_context,
        "heldout": 0.05,
    }
    return {
        "name": "first-gpu",
        "corpus": corpus,
        "training": {"batch_tokens": sizes.ladder_context * (32 if on_gpu else 2), **precision},
        "supervised": [{"params": list(params), "tokens": list(sizes.ladder_tokens)}],
    }


def _is_ours(path: Path) -> bool:
    inside = path.relative_to(ROOT).parts
    return not any(part.startswith(".") or part in ("build", "quickstart", "shared") for part in inside)
