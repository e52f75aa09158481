"""Teachers that were not trained here: any causal language model on disk or on a hub.

``files`` finds and identifies one, ``vocabulary`` compares its tokens with the students', ``count`` says how
large and how costly it is, ``load`` makes it teach, and ``convert`` makes a directory of a GGUF file.
"""
