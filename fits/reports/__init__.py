"""Reports of a fit as text, JSON and HTML, and its calibration for the planner."""
