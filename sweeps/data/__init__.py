"""Text: where it comes from, how documents are held out, and how it becomes tokens on disk.

May import ``sweeps.spec``.
"""

from sweeps.data.sources import Document, Part, Source, source_of
from sweeps.data.tokens import TokenisedCorpus, tokenise

__all__ = ["Document", "Part", "Source", "TokenisedCorpus", "source_of", "tokenise"]
