"""Run scenarios of a simulated cluster with the real scheduler.

    python benchmarks/simulated_cluster [SCENARIO ...]

Drivers run the real scheduler, leases, budget and store code in virtual time; nodes, training and the bucket
are simulated. Prints what a sweep took, against bounds, and what it cost the drivers.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_cluster.scenarios import SCENARIOS
from simulated_cluster.simulation import Simulation


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.scenario) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    for name in arguments.scenario or SCENARIOS:
        print(Simulation(SCENARIOS[name], arguments.seed).run(), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
