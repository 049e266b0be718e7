"""Data: bytes of files or samples of a generator, batched by a pure function of seed and step."""

from helix_plugin_training.data.batches import Batch, Batches
from helix_plugin_training.data.corpus import Corpus, Document, load_corpus, read_documents
from helix_plugin_training.data.files import find_files
from helix_plugin_training.data.task import HELD_OUT, Task, TaskBatches, load_task

__all__ = [
    "HELD_OUT",
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
