"""Drivers, the processes that run a scheduler: their records, the work of others, patience with the store."""
