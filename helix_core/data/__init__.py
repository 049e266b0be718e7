"""Data: bytes of files, split by file, batched by a pure function of seed and step."""

from helix_core.data.batches import Batch, Batches
from helix_core.data.corpus import SEPARATOR, Corpus, Document, load_corpus, read_documents
from helix_core.data.files import find_files

__all__ = [
    "SEPARATOR",
    "Batch",
    "Batches",
    "Corpus",
    "Document",
    "find_files",
    "load_corpus",
    "read_documents",
]
