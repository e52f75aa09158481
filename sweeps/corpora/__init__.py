"""Text: where it comes from, how documents are held out, and how it becomes tokens on disk."""

from sweeps.corpora.sources import Document, Part, Source, source_of
from sweeps.corpora.tokens import TokenisedCorpus, tokenise

__all__ = ["Document", "Part", "Source", "TokenisedCorpus", "source_of", "tokenise"]
