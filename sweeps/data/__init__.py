"""Text corpora: sources, held-out split, tokenizers, tokens on disk.

May import ``sweeps.spec``.
"""

from sweeps.data.sources import CorpusPart, Document, TextSource, source_of
from sweeps.data.tokens import TokenizedCorpus, tokenize

__all__ = ["CorpusPart", "Document", "TextSource", "TokenizedCorpus", "source_of", "tokenize"]
