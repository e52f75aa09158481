"""Savings of shared prefixes, and the loss of their schedule: warm-up-stable-decay against cosine, paired.

    python benchmarks/shared_prefix_saving.py [--sizes 13k 22k] [--tokens 262144 524288 1048576] [--seeds 4]

Under ``wsd`` runs of one size and seed share a prefix at constant rate and branch off it to decay. They end
in the bits of runs apart (tests/sweeps/dag/test_shared_prefixes.py), so sharing itself costs nothing. Its
saving is counted in FLOPs, and held-out losses are measured against those of cosine, on the King James Bible,
with the same initialization and batches. About 5 minutes on one core at the defaults.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import pandas as pd
import torch

from scaling.units import parse_quantity
from sweeps import results
from sweeps.dag.expand import Dag
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["13k", "22k"])
    parser.add_argument("--tokens", nargs="+", default=["262144", "524288", "1048576"])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {
        "params": options.sizes,
        "tokens": [parse_quantity(each, "--tokens") for each in options.tokens],
        "seeds": list(range(options.seeds)),
    }
    shared, apart = (dag_of(sweep_of(runs, "wsd", share_prefixes=share)) for share in (True, False))
    print(
        f"{len(apart.steps)} runs of D = {', '.join(options.tokens)}: apart {apart.flops:.3g} FLOPs, "
        f"from shared prefixes {shared.flops:.3g}: {1 - shared.flops / apart.flops:.0%} saved"
    )
    report(losses(runs, "wsd"), losses(runs, "cosine"))


def sweep_of(runs: dict[str, Any], schedule: str, **more: object) -> Any:
    """A sweep of supervised runs."""
    return parse_sweep(
        {
            "name": "shared-prefix-saving",
            "corpus": {"source": "kjv", "vocab": 512, "context": 128},
            "training": {"schedule": schedule},
            "supervised": [runs],
            **more,
        }
    )


def losses(runs: dict[str, Any], schedule: str) -> pd.Series:
    """Held-out losses by size, tokens and seed."""
    sweep = sweep_of(runs, schedule)
    dag: Dag = dag_of(sweep)
    with tempfile.TemporaryDirectory(prefix="distlaw-") as folder:
        store = Store(folder)
        record_sweep(store, sweep, dag)
        run(dag, store, InlineExecutor(store), lambda step: step.flops, lambda _: None)
        return results(folder).set_index(["params", "tokens", "seed"])["loss"]


def report(wsd: pd.Series, cosine: pd.Series) -> None:
    """Print both losses by size and tokens, and their difference over seeds."""
    table = pd.DataFrame({"wsd": wsd, "cosine": cosine})
    table["difference"] = table["wsd"] - table["cosine"]
    for (params, tokens), group in table.groupby(level=["params", "tokens"]):
        lost = group["difference"]
        print(
            f"{params:>7,} {tokens:>9,.0f}  wsd {group['wsd'].mean():.4f}  "
            f"cosine {group['cosine'].mean():.4f}  "
            f"difference {lost.mean():+.4f} +- {lost.sem():.4f} nats/token"
        )


if __name__ == "__main__":
    main()
