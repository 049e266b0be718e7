"""Foreign tensors as Helix's parameters, and back: renamed, reshaped, nothing computed but the dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from helix_core.errors import CheckpointError
from helix_plugin_huggingface.families import Family
from helix_plugin_huggingface.source import shortened_list
from helix_plugin_lm.models import LanguageModel
from helix_plugin_lm.storage.tensor_file import Tensor

FLOATS = ("F32", "BF16", "F16")
LEAST_BEYOND_BFLOAT16 = np.uint32(0x7F7F8000).view(np.float32)
"""What would be rounded to infinity."""


def imported(family: Family, model: LanguageModel, found: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The model's parameters, in float32, of a checkpoint's tensors.

    Raises CheckpointError that names every tensor that is missing, too many, or of another shape or dtype.
    """
    names = family.names(model)
    found = {name: tensor for name, tensor in found.items() if not name.startswith(family.ignored)}
    for name, alias in family.aliases.items():
        if name not in found and alias in found:
            found[name] = found.pop(alias)
    if model.config.tie_embeddings:
        _drop_tied_head(family, names["embedding.weight"].name, found, origin)
    wanted = {name.name: name.shape for name in names.values()}
    problems = [f"missing {name} {shape}" for name, shape in wanted.items() if name not in found]
    problems += [f"unexpected {name} {tensor.shape}" for name, tensor in found.items() if name not in wanted]
    for name, shape in wanted.items():
        if name in found and found[name].shape != shape:
            problems.append(f"{name} is {found[name].shape}, config.json makes it {shape}")
        if name in found and found[name].code not in FLOATS:
            problems.append(f"{name} is of dtype {found[name].code}, not one of {', '.join(FLOATS)}")
    if problems:
        raise CheckpointError(
            f"{origin} does not fit its config.json, a {family.architecture} of {len(wanted)} tensors: "
            f"{shortened_list(problems)}",
            hint="take config.json and weights from the same place",
        )
    specs = model.param_specs()
    return {ours: _as_float32(found[theirs.name], specs[ours].shape) for ours, theirs in names.items()}


def exported(
    family: Family, model: LanguageModel, params: Mapping[str, Tensor], codes: Mapping[str, str], code: str
) -> dict[str, Tensor]:
    """A checkpoint's tensors of the model's parameters, each in the dtype that `codes` has for it, or in `code`."""
    return {
        theirs.name: _cast(params[ours], theirs.shape, codes.get(theirs.name, code))
        for ours, theirs in family.names(model).items()
    }


def _drop_tied_head(family: Family, embedding: str, found: dict[str, Tensor], origin: str) -> None:
    head, tied = found.pop(family.head, None), found.get(embedding)
    if head is None or tied is None:
        return
    if head.code != tied.code or not np.array_equal(_bits(head), _bits(tied)):
        raise CheckpointError(
            f"{origin}: {family.head} differs from {embedding}, but config.json ties them",
            hint='if the head is one of its own, set "tie_word_embeddings": false in config.json',
        )


def _bits(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8)


def _as_float32(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    def read() -> np.ndarray:
        values = tensor.read() if tensor.code == "F32" else tensor.numpy().astype(np.float32)
        return values.reshape(shape)

    return Tensor("F32", shape, read, tensor.origin)


def _cast(tensor: Tensor, shape: tuple[int, ...], code: str) -> Tensor:
    def read() -> np.ndarray:
        values = tensor.read() if tensor.code == code else _FROM_FLOAT32[code](tensor.numpy().astype(np.float32))
        return values.reshape(shape)

    return Tensor(code, shape, read, tensor.origin)


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, to even between two; NaN stays NaN."""
    if np.any(np.abs(values[np.isfinite(values)]) >= LEAST_BEYOND_BFLOAT16):
        raise CheckpointError("a weight is too large for bfloat16", hint="export with --dtype float32")
    bits = values.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    # A NaN keeps its upper bits; if those alone would be an infinity, the quiet bit is set.
    nan = np.where(bits & 0x7F0000, bits >> 16, (bits >> 16) | 0x40)
    return np.where(np.isnan(values), nan, rounded).astype(np.uint16)


def _float16(values: np.ndarray) -> np.ndarray:
    if np.any(np.abs(values[np.isfinite(values)]) > np.finfo(np.float16).max):
        raise CheckpointError("a weight is too large for float16", hint="export with --dtype bfloat16 or float32")
    return values.astype(np.float16)


_FROM_FLOAT32: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda values: values,
    "BF16": _bfloat16,
    "F16": _float16,
}
