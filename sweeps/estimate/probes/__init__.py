"""Measurements on this machine before a sweep: compiling and bf16, the decisions of a store, planned time."""
