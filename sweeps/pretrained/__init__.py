"""Pretrained teachers: any causal language model on disk or on a hub.

``admission`` checks one against a sweep, ``vocabulary`` compares its tokens with those of the students,
``count`` counts its parameters and FLOPs, ``load`` loads it (``quantized`` as transformers does, ``sharded``
over several processes, each of which reads its ``weight_slices``), ``served`` asks a server about it through
``completions`` in one of ``scoring_forms``, ``convert`` converts a GGUF file. May import ``dag`` and
the rooms below.
"""
