"""Tokens that a run had trained on at its evaluations: as logged, or steps times a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fits.logs.lookup import Quantity, find_quantity
from fits.logs.metric_names import SIZES, token_counts
from fits.logs.run_log import RunLog

Array = NDArray[np.float64]
Found = tuple[Array, str, list[str]]
"""Tokens (n,), NaN where unknown; the rule in words; and sentences on what is missing."""
SAMPLES = ("consumed samples", "consumed_samples", "consumed-samples")
"""Names of the count of sequences trained on (Megatron-LM, NeMo)."""
BATCHES = (("global batch size", "sequence length"), ("global_batch_size", "seq_length"))
"""Settings with the sequences of a step and their length (torchtitan, Megatron-LM)."""
BATCHES_IN_TOKENS = ("total_batch_size", "Total batch size", "tokens_per_step", "batch_size_tokens")
"""Settings with the tokens of a step (nanochat)."""


def tokens_at(log: RunLog, steps: Array, mapping: Mapping[str, str], tokens_per_step: str) -> Found:
    """Return the tokens at some steps (n,).

    In this order: what the mapping names; steps times ``tokens_per_step``; a count in the log; sequences
    times their length; steps times the batch that torchtitan, Megatron-LM or nanochat records.
    """
    if wanted := mapping.get("tokens"):
        found = find_quantity(log, wanted, column="tokens")
        if found is None:
            return _none(steps, f"tokens: no {wanted!r} in the log")
        return _interpolated(found, steps)
    if tokens_per_step:
        return _steps_times(log, steps, tokens_per_step)
    for name in token_counts([*log.series, *log.settings]):
        found = find_quantity(log, name, mapped=False, column="tokens")
        if found is not None and found.series[1].max(initial=0.0) > 0:
            return _interpolated(found, steps)
    for name in SAMPLES:
        found = find_quantity(log, name, mapped=False)
        length = _first(log, SIZES["context"])
        if found is not None and length is not None:
            sequences, _, missing = _interpolated(found, steps)
            return sequences * length.at(0), f"{name} x {length.name}", missing
    for sequences_name, length_name in BATCHES:
        if sequences_name in log.settings and length_name in log.settings:
            return _steps_times(log, steps, f"{sequences_name}*{length_name}")
    batch = _first(log, BATCHES_IN_TOKENS)
    if batch is not None:
        return steps * batch.at(0), f"step x {batch.name}", []
    return _none(
        steps,
        "tokens: not counted in the log; say how many a step has, --tokens-per-step 65536, or by names of "
        "settings, --tokens-per-step 'batch_size*seq_length'",
    )


def _none(steps: Array, missing: str) -> Found:
    return np.full(len(steps), np.nan), "", [missing]


def _first(log: RunLog, names: tuple[str, ...]) -> Quantity | None:
    return next((found for name in names if (found := find_quantity(log, name)) is not None), None)


def _steps_times(log: RunLog, steps: Array, tokens_per_step: str) -> Found:
    """Return steps times a batch, given as a product of numbers and names of settings."""
    product, rule = 1.0, []
    for part in tokens_per_step.split("*"):
        found = None if _is_number(part) else find_quantity(log, part.strip())
        if found is None and not _is_number(part):
            return _none(steps, f"tokens: no {part.strip()!r} in the log, which --tokens-per-step names")
        factor = float(part) if found is None else found.at(0.0)
        product *= factor
        rule.append(f"{part.strip()}" + ("" if found is None else f" ({factor:g})"))
    return steps * product, "step x " + " x ".join(rule), []


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _interpolated(found: Quantity, steps: Array) -> Found:
    """Return a count at steps, linear in between; unknown beyond the logged ones, but for a constant."""
    at, counts = found.series
    if len(at) == 1 and at[0] == 0.0:
        if len(steps) <= 1:
            return np.full(len(steps), counts[0]), found.name, []
        return _none(steps, f"tokens: {found.name} is one number, and the run has several evaluations")
    values = np.interp(steps, at, counts, left=np.nan, right=np.nan)
    if np.isnan(values).any():
        step = steps[np.isnan(values)][-1]
        return values, found.name, [f"tokens: {found.name} is not logged around step {step:g}"]
    return values, found.name, []
