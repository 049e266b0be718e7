"""A trained model with everything that belongs to it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import GenerationError, UsageError
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.generation.stopping import CONTEXT
from helix_plugin_lm.runs import LoadedRun, RunFolder, load_run

if TYPE_CHECKING:
    from helix_plugin_lm.tokenizers import Tokenizer
    from helix_plugin_training import Evaluation


def load(source: str | Path | Run | RunFolder, *, backend: str = "auto", dtype: str = "float32") -> Run:
    """Load a run: a run folder or one checkpoint of it, what `train` returned, or a Hugging Face checkpoint's folder.

    `backend` names where it computes, `dtype` what in. Raises UsageError if `source` is none of these, CheckpointError
    if its weights are damaged, ComponentUnavailable if the backend cannot be used here.

    >>> import tempfile
    >>> import helix
    >>> recipe = {"name": "tiny", "model": {"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 2}}}
    >>> short = {"steps": 2, "batch_size": 2, "seq_len": 16}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = helix.train(recipe, training=short, texts=["to be or not to be"] * 20, runs=folder)
    ...     again = helix.load(run.path)
    >>> again.generate("to", max_tokens=3) == run.generate("to", max_tokens=3)
    True
    """
    path = Path(source.path if isinstance(source, Run | RunFolder) else source)
    if (path / "config.json").is_file() and not (path / "recipe.toml").exists():
        from helix_plugin_huggingface.loading import load_checkpoint

        return Run(load_checkpoint(path, backend=backend, dtype=dtype), path)
    return Run(load_run(path, backend=backend, dtype=dtype), path)


class Run:
    """A model bound to its parameters, its backend and its tokenizer; made by `load` and `train`.

    path    the folder that it was loaded from
    loaded  its parts, for those who write their own loops: model, backend, op table, parameters, tokenizer

    >>> import tempfile
    >>> import helix
    >>> recipe = {"name": "tiny", "model": {"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 2}}}
    >>> short = {"steps": 2, "batch_size": 2, "seq_len": 16}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = helix.train(recipe, training=short, texts=["to be or not to be"] * 20, runs=folder)
    >>> type(run.generate("to be", max_tokens=4)).__name__, run.logits("to be").shape
    ('str', (6, 256))
    """

    def __init__(self, loaded: LoadedRun, path: Path) -> None:
        self.loaded, self.path = loaded, path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step={self.loaded.step}, backend={self.loaded.backend.name!r})"

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into the model's tokens. Raises UsageError for a model whose tokens are no text."""
        if self.loaded.tokenizer is None:
            raise UsageError(
                f"the {self.loaded.model.vocab_size} tokens of {self.path} are no text",
                hint="its model learned a generator's task: `helix eval` says how well",
            )
        return self.loaded.tokenizer

    def generate(self, prompt: str = "", **options: Any) -> str:
        """The text that continues `prompt`; the options are those of `stream`."""
        return "".join(self.stream(prompt, **options))

    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int | None = 400,
        stop: Sequence[str] = (),
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        weights: str = "float32",
    ) -> Iterator[str]:
        """Pieces of the text that continues `prompt`, whole characters each, as the model writes them.

        It ends after `max_tokens`, in front of a `stop` text, or at a token that ends texts in the run's tokenizer.
        Equal seeds give equal texts. `weights` is the format that weights are kept in ("float32", "bfloat16", "int8").
        Raises UsageError for options without meaning or a prompt longer than the model's context, GenerationError if
        the context is full before the text ends.
        """
        tokenizer = self.tokenizer
        if isinstance(stop, str):
            raise UsageError(f"stop is a list of texts: write stop=[{stop!r}]")
        text = generate(
            *self._parts,
            prompt.encode(),
            sampling=Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            stopping=Stopping(max_tokens, None, tuple(s.encode() for s in stop), tokenizer.ends),
            tokenizer=tokenizer,
            seed=seed,
            weights=weights,
        )

        def pieces() -> Iterator[str]:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            for piece in text:
                if decoded := decoder.decode(piece):
                    yield decoded
            if rest := decoder.decode(b"", final=True):
                yield rest
            if text.finish == CONTEXT:
                raise GenerationError(f"stopped after {text.tokens:,} tokens: the model's state can take in no more")

        return pieces()

    def logits(self, text: str | bytes | np.ndarray) -> np.ndarray:
        """What the model expects after every token of a text or of integer tokens (L,): float32 logits (L, V).

        A text stands at the start of a document, after the token that the tokenizer puts there. Raises UsageError for
        tokens that the model does not know.
        """
        if isinstance(text, str | bytes):
            tokens = self.tokenizer.prompt(text.encode() if isinstance(text, str) else text)
        else:
            tokens = np.asarray(text)
            known = self.loaded.model.vocab_size
            if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
                raise UsageError(f"tokens are integers (L,), not {tokens.dtype} of shape {tokens.shape}")
            if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= known:
                raise UsageError(f"tokens must be within 0..{known - 1}")
        model, backend, F, params = self._parts
        with backend.inference():
            found, _ = model.apply(F, params, backend.asarray(tokens.astype(np.int64)[None]))
            logits: np.ndarray = backend.to_numpy(found)[0].astype(np.float32)
        return logits

    def evaluate(self, data: str | Path | Iterable[str | bytes]) -> Evaluation:
        """Bits that the model needs for texts, each coded on its own: a file, folder or glob, or the texts themselves.

        Raises DataError if there is nothing to read or the tokenizer cannot encode it.
        """
        from helix.documents import documents_of
        from helix_plugin_training import evaluate

        return evaluate(*self._parts, documents_of(data), tokenizer=self.tokenizer)

    @property
    def _parts(self) -> tuple[Any, Any, Any, Any]:
        return self.loaded.model, self.loaded.backend, self.loaded.F, self.loaded.params
