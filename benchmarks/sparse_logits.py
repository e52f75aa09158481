"""Loss of students whose teacher's distributions were stored sparsely: top-k, top-p, sampled, at like bytes.

    python benchmarks/sparse_logits.py [--seeds 3] [--tokens 131072] [--teacher 107k] [--size 13k]

Every student is trained from whole distributions in half precision, and again from few tokens of each: the
same initialization and the same batches, so that differences are paired. Bytes are those of the files, index
and checksums included. About 3 minutes of one core at the defaults.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import t

from sweeps import results
from sweeps.dag.kind import StepKind
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store

WHOLE = "forward-kl cached"
WAYS = (
    {"logits": "cached"},
    {"logits": "top-k", "top": 12, "probability_bits": 8},
    {"logits": "top-p", "top": 24, "top_p": 0.8, "probability_bits": 8},
    {"logits": "sampled", "draws": 24},
    {"logits": "sampled", "draws": 24, "proposal_power": 0.8},
    {"logits": "top-k", "top": 24, "probability_bits": 8},
    {"logits": "sampled", "draws": 50},
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--teacher", default="107k")
    parser.add_argument("--size", default="13k")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sweep = parse_sweep(
        {
            "name": "sparse-logits",
            "corpus": {"source": "kjv", "vocab": 512, "context": 128},
            "training": {"batch_tokens": 256},
            "teachers": [{"params": [options.teacher], "tokens": [2 * options.tokens]}],
            "students": [
                {
                    "params": [options.size],
                    "tokens": [options.tokens],
                    "seeds": list(range(options.seeds)),
                }
            ],
            "methods": list(WAYS),
        }
    )
    dag = dag_of(sweep)
    with tempfile.TemporaryDirectory(prefix="distlaw-") as folder:
        store = Store(folder)
        record_sweep(store, sweep, dag)
        run(dag, store, InlineExecutor(store), lambda step: step.flops, lambda _: None)
        sizes = {
            step.method.name: sum(file.stat().st_size for file in Path(folder, step.id, "logits").iterdir())
            / step.tokens
            for step in dag.steps
            if step.kind is StepKind.CACHE_LOGITS and step.method
        }
        report(results(folder), sizes)


def report(table: pd.DataFrame, sizes: dict[str, float]) -> None:
    """Print the loss of every way, and what is lost against whole distributions, with 90 % intervals."""
    runs = table[table["kind"] == "distillation"]
    print(f"teacher: {table['teacher_loss'].dropna().iloc[0]:.4f} nats/token")
    losses = runs.pivot_table(index="seed", columns="method", values="loss")
    reach = t.ppf(0.95, len(losses) - 1) / len(losses) ** 0.5
    for method in losses[list(sizes)]:
        lost = losses[method] - losses[WHOLE]
        against = "" if method == WHOLE else f"  {lost.mean():+.4f} +- {reach * lost.std(ddof=1):.4f}"
        print(
            f"{method:36} {sizes[method]:7.1f} bytes a token  {losses[method].mean():.4f}{against}",
            flush=True,
        )


if __name__ == "__main__":
    main()
