"""Readers of logs, one file for each format. Nothing is unpickled; optional packages are imported on use."""
