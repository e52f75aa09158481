"""Runs that commands of the user train: what a command is told, how it is run, and what it leaves.

``job`` describes a run to its command, ``command`` fills the placeholders, ``process`` runs it under a
``guard``, ``collect`` reads what it left, and ``run`` joins them. May import ``train`` and the rooms below.
"""
