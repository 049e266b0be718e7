"""Text with spans masked: what a model learns from that is to fill in spans."""

from __future__ import annotations

import threading
from bisect import bisect_right
from itertools import accumulate

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator
from helix_plugin_training.data import Document, load_corpus
from helix_plugin_training.data.task import HELD_OUT

MASK = 256
"""The token that stands for a byte to be filled in."""


class MaskedSpansConfig(GeneratorConfig):
    """Which files, and how much of them is masked."""

    source: str | tuple[str, ...] = Field("stdlib", description="a file, folder or glob, or several; 'stdlib'")
    validation: float = Field(0.05, gt=0, lt=1, description="share of the files (or of the bytes of one) held out")
    seq_len: int = Field(256, gt=1, le=2**24, description="bytes of a sample")
    share: float = Field(0.2, gt=0, lt=1, description="of a sample's bytes, those masked")
    max_span: int = Field(16, gt=0, le=2**24, description="longest span; lengths are uniform")

    @model_validator(mode="after")
    def _fits(self) -> MaskedSpansConfig:
        if self.max_span >= self.seq_len:
            raise ValueError(f"max_span = {self.max_span} must be shorter than a sample, seq_len = {self.seq_len}")
        return self


class MaskedSpans(TokenGenerator[MaskedSpansConfig]):
    """A window of a file, bytes 0..255, in which spans are the token 256: targets are the bytes, scored where masked.

    Spans of 1 to `max_span` bytes are masked until `share` of the window is, at least one byte. A file shorter than a
    sample is followed by zeros, which are never masked. Indices from 2**62 on, where Helix keeps what is held out, are
    of the held-out files, all others of the rest. Raises DataError if the files cannot be read.
    Source: Joshi et al., SpanBERT, 2019; Raffel et al., T5, 2020 (spans to be filled in).

    >>> import helix_core
    >>> from helix_core import create
    >>> spans = create("generator", "masked-spans", source=[helix_core.__file__, __file__], seq_len=32)
    >>> sample = spans.sample(0, 0)
    >>> bool((sample["inputs"][sample["mask"]] == 256).all()), sample["targets"].shape
    (True, (32,))
    """

    looks_ahead = True

    def __init__(self, config: MaskedSpansConfig) -> None:
        super().__init__(config)
        self._lock = threading.Lock()
        self._parts: dict[bool, _Documents] = {}

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return MASK + 1

    def sample(self, seed: int, index: int) -> Sample:
        """Sample `index` of `seed`. Raises UsageError if either is out of range."""
        from helix_core.kinds.generator import stream

        return self.draw(stream(seed, index), self._documents(index >= HELD_OUT))

    def draw(self, rng: np.random.Generator, world: _Documents) -> Sample:
        c = self.config
        window = world.window(rng, c.seq_len)
        targets = np.zeros(c.seq_len, np.int64)
        targets[: len(window)] = window
        mask = np.zeros(c.seq_len, bool)
        due = max(1, round(c.share * len(window)))
        while (left := due - int(mask.sum())) > 0:
            length = min(int(rng.integers(1, c.max_span + 1)), left, len(window))
            begin = int(rng.integers(len(window) - length + 1))
            mask[begin : begin + length] = True
        return {"inputs": np.where(mask, MASK, targets), "targets": targets, "mask": mask}

    def _documents(self, held_out: bool) -> _Documents:
        with self._lock:
            if not self._parts:
                corpus = load_corpus(self.config.source, self.config.validation)
                self._parts = {False: _Documents(corpus.train), True: _Documents(corpus.validation)}
            return self._parts[held_out]


class _Documents:
    """Windows of documents, every byte as likely as any other to be in one."""

    def __init__(self, documents: tuple[Document, ...]) -> None:
        self.documents = documents
        self.ends = list(accumulate(map(len, documents)))

    def window(self, rng: np.random.Generator, length: int) -> np.ndarray:
        document = self.documents[bisect_right(self.ends, int(rng.integers(self.ends[-1])))].data
        begin = int(rng.integers(max(1, len(document) - length + 1)))
        return document[begin : begin + length]
