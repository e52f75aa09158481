"""Caches: what a teacher gives over a stream of tokens, written to the store once and read by every student.

``shard_cache`` writes shards, ``shards`` reads them (``read_ahead`` in a thread; ``read_ahead_memory`` tells
its bytes), and ``shard_layout`` says how blocks lie in one. What is kept of a token: ``logit_format``,
``sparse_formats`` with ``bit_packing`` and ``compression``, ``hidden_state_cache``.
"""
