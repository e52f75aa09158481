"""Steps of a sweep with their ids and costs: sizes become shapes, grids become a DAG.

``expand`` is a pure function of what :mod:`sweeps.resolve` looked up. May import ``model`` and the rooms
below.
"""
