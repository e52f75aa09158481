"""``python -m sweeps.run_step STORE ID...``: run steps of the sweep recorded in a store, as a batch system does."""

from __future__ import annotations

import sys

from sweeps.execute.jobs import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
