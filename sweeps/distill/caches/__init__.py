"""Caches: what a teacher gives over a stream of tokens, written to the store once and read by every student.

``shard_cache`` writes and reads shards, ``logit_format`` and ``hidden_state_cache`` say what is in them.
"""
