"""Tokenization of sources larger than memory: documents to buckets on disk, buckets to tokens."""
