"""What a sweep asks for: its YAML, validated whole, and the messages a person reads where it is wrong.

The lowest room of ``sweeps``: imports no other.
"""
