"""``python -m fits.published`` makes the calibrations that ship, from the data in ``fits/data``."""
