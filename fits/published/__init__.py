"""Calibrations that ship with the package: ``python -m fits.published`` builds them."""
