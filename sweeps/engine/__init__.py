"""One run, fast and exact: model, optimiser, data, the loop, and its translation to machine code."""
