"""Data: bytes of files or samples of a generator, batched by a pure function of seed and step."""

from helix_core.data.batches import Batch, Batches
from helix_core.data.corpus import SEPARATOR, Corpus, Document, load_corpus, read_documents
from helix_core.data.files import find_files
from helix_core.data.task import HELD_OUT, Task, TaskBatches, load_task

__all__ = [
    "HELD_OUT",
    "SEPARATOR",
    "Batch",
    "Batches",
    "Corpus",
    "Document",
    "Task",
    "TaskBatches",
    "find_files",
    "load_corpus",
    "load_task",
    "read_documents",
]
