"""``python -m sweeps.run_step STORE ID...``: run steps of the sweep recorded in a store, as a batch system
does."""

from __future__ import annotations

import sys

from scaling.errors import InputError

if __name__ == "__main__":
    try:
        from sweeps.execute.jobs import main
    except InputError as error:  # a setting in the environment is wrong
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    raise SystemExit(main(sys.argv[1:]))
