"""Loss of students with cached instead of online teacher logits, paired over seeds, on quickstart text.

    python benchmarks/cached_logits.py [--seeds 4] [--tokens 262144] [--teacher 107k]

Every student is trained once with its teacher online, and again from its cached logits: the same
initialization and the same batches, so that differences are paired. About 6 minutes on one core at the
defaults, and 1.6 GB of disk for as long.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import pandas as pd
import torch

from sweeps import results
from sweeps.distill.caches.logit_format import kept
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store

TOPS = (64, 32, 8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--teacher", default="107k")
    parser.add_argument("--sizes", nargs="+", default=["13k", "22k"])
    parser.add_argument("--divergences", nargs="+", default=["forward-kl"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = [{}, {"logits": "cached"}, *({"logits": "top-k", "top": top} for top in TOPS)]
    sweep = parse_sweep(
        {
            "name": "cached-logits",
            "corpus": {"source": "kjv", "vocab": 512, "context": 128},
            "training": {"batch_tokens": 512},
            "teachers": [{"params": [options.teacher], "tokens": [2 * options.tokens]}],
            "students": [
                {"params": options.sizes, "tokens": [options.tokens], "seeds": list(range(options.seeds))}
            ],
            "methods": [{"divergence": name, **way} for name in options.divergences for way in ways],
        }
    )
    dag = dag_of(sweep)
    with tempfile.TemporaryDirectory(prefix="distlaw-") as folder:
        store = Store(folder)
        record_sweep(store, sweep, dag)
        run(dag, store, InlineExecutor(store), lambda step: step.flops, lambda _: None)
        report(results(folder))
    for method in sweep.methods[1 : len(ways)]:
        print(f"{method.name}: {kept(method, 512).dtype.itemsize} bytes a token")


def report(table: pd.DataFrame) -> None:
    """Losses of every way, and what is lost against the teacher online."""
    runs = table[table["kind"] == "distillation"]
    print(f"teacher: {table['teacher_loss'].dropna().iloc[0]:.4f} nats/token")
    for params, group in runs.groupby("params"):
        losses = group.pivot_table(index="seed", columns="method", values="loss")
        for method in sorted(losses, key=lambda name: (name.split()[0], losses[name].mean())):
            online = str(method).split()[0]
            lost = losses[method] - losses[online]
            error = lost.std(ddof=1) / np.sqrt(len(lost))
            against = "" if method == online else f"  {lost.mean():+.5f} +- {error:.5f} against online"
            print(
                f"{params:>7,} {method:20} {losses[method].mean():.4f} nats/token "
                f"(sd over seeds {losses[method].std(ddof=1):.4f}){against}",
                flush=True,
            )


if __name__ == "__main__":
    main()
