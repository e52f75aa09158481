"""Work that executors launch: a step trains or evaluates here or by a command, and commits its result.

``provenance`` records the sweep and the software; ``trackers`` report to TensorBoard, W&B or MLflow.
"""
