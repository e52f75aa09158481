"""Parsing of specs: strict YAML, changes of ``--set``, synonyms of fields, messages about invalid ones.

Imports nothing else of ``sweeps``.
"""
