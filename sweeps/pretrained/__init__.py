"""Teachers that were not trained here: any causal language model on disk or on a hub.

``admission`` decides whether one can teach, ``vocabulary`` compares its tokens with the students', ``count``
gives its size and cost, ``load`` makes it teach, ``convert`` makes a directory of a GGUF file. May import
``dag`` and the rooms below.
"""
