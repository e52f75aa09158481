"""A fit as text, as an HTML page, and as the calibration file that the planner reads."""
