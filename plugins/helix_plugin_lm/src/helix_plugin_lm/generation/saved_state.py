"""A text that is being written, in a file: goes on later, bit for bit, in the same model.

The file is safetensors: the state's arrays, the last logits and the counts of tokens; the rest is in its metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from helix_core.durable import write_file
from helix_core.errors import CheckpointError
from helix_core.tree import tree_items, tree_map
from helix_core.untrusted import fits, parse_json, refusing
from helix_plugin_lm.storage.tensor_file import open_with_metadata

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel
    from helix_plugin_lm.tokenizers import Tokenizer
    from helix_plugin_lm.tokenizers.base import StreamState

FORMAT, VERSION = "helix-state", "1"
STATE = "state."


class _Progress(BaseModel):
    """How far a text has come, besides the arrays of its state."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    position: int = Field(ge=1, lt=2**53)
    rng: dict[str, Any]
    stream: Annotated[tuple[list[int], int], Field(strict=False)]


@dataclass(frozen=True)
class SavedState:
    """Everything that the rest of a text depends on, besides the model.

    state     the model's own pytree for one row, of NumPy arrays
    logits    (V,) after the last token
    counts    (tokens of the tokenizer,) how often prompt and text have each
    position  tokens that the model has read
    rng       state of the generator of random numbers
    stream    the last tokens, whose text may lack the end of a character
    """

    state: Any
    logits: np.ndarray
    counts: np.ndarray
    position: int
    rng: dict[str, Any]
    stream: StreamState

    def write(self, path: str | Path, fingerprint: str) -> None:
        """Write a file for the model of this fingerprint, or leave the one that is there. Raises CheckpointError."""
        from safetensors.numpy import save

        arrays = {f"{STATE}{name}": array for name, array in tree_items(self.state)}
        arrays |= {"logits": self.logits, "counts": self.counts}
        progress = {
            "position": self.position,
            "rng": self.rng,
            "stream": [list(map(int, self.stream[0])), self.stream[1]],
        }
        data = save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            {"format": FORMAT, "version": VERSION, "model": fingerprint, "facts": json.dumps(progress)},
        )
        path = Path(path)
        try:
            write_file(path, data)
        except OSError as error:
            raise CheckpointError(f"cannot write state {path}: {error.strerror or error}") from error


def read_state(
    path: str | Path, fingerprint: str, model: LanguageModel, F: OpTable, tokenizer: Tokenizer
) -> SavedState:
    """Read a state of the model of this fingerprint.

    Raises CheckpointError if the file cannot be read, is damaged, is no state, or is one of another model.
    """
    tensors, metadata = open_with_metadata(Path(path))
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a saved state: `helix generate --save-state` writes one")
    if metadata.get("version") != VERSION:
        raise CheckpointError(f"state {path} is of version {metadata.get('version')}, this is {VERSION}")
    if metadata.get("model") != fingerprint:
        raise CheckpointError(
            f"state {path} is of another model, or of another checkpoint of this one",
            hint="go on with the run and the checkpoint that it was saved from",
        )
    progress = fits(_Progress, parse_json(metadata.get("facts", ""), path, CheckpointError), path, CheckpointError)
    with refusing(f"state {path}", CheckpointError):
        return _checked({name: tensor.numpy() for name, tensor in tensors.items()}, progress, model, F, tokenizer)


def _checked(
    arrays: dict[str, np.ndarray], progress: _Progress, model: LanguageModel, F: OpTable, tokenizer: Tokenizer
) -> SavedState:
    initial = model.init_state(F, 1)
    shapes = {f"{STATE}{name}": tuple(leaf.shape) for name, leaf in tree_items(initial)}
    shapes |= {"logits": (model.config.vocab_size,), "counts": (tokenizer.vocab_size,)}
    if shapes != {name: tuple(array.shape) for name, array in arrays.items()}:
        raise ValueError("its arrays are not those of the model's state")
    kinds = {f"{STATE}{name}": F.xp.isdtype(leaf.dtype, "real floating") for name, leaf in tree_items(initial)}
    for name, array in arrays.items():
        if (array.dtype.kind == "f") != kinds.get(name, name == "logits"):
            raise ValueError(f"{name} is {array.dtype}")
    if arrays["counts"].min() < 0:
        raise ValueError("counts are below 0")
    ids, given = progress.stream
    tokenizer.stream((ids, given))
    np.random.default_rng().bit_generator.state = progress.rng
    names = iter([name for name, _ in tree_items(initial)])
    state = tree_map(lambda _: arrays[f"{STATE}{next(names)}"], initial)
    return SavedState(state, arrays["logits"], arrays["counts"], progress.position, progress.rng, (tuple(ids), given))
