"""What the libraries' functions share: named sizes, documents by number, and dtypes that Helix's ops take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from helix_core.errors import UsageError


def sizes(function: str, given: Mapping[str, tuple[Tensor | None, str]]) -> dict[str, int]:
    """Sizes by the names of axes, from tensors with the names of theirs. Raises UsageError where they disagree."""
    found: dict[str, int] = {}
    for name, (tensor, axes) in given.items():
        if tensor is None:
            continue
        letters = axes.split()
        shape = tuple(tensor.shape)
        if len(shape) != len(letters):
            raise UsageError(f"{function}: {name} is ({', '.join(letters)}), and got {shape}")
        for letter, size in zip(letters, shape, strict=True):
            if found.setdefault(letter, size) != size:
                raise UsageError(
                    f"{function}: {name} is ({', '.join(letters)}), and got {shape} where {letter} = {found[letter]}"
                )
    return found


def promoted(dtype: torch.dtype, *tensors: Tensor | None) -> list[Any]:
    """The tensors in no narrower dtype than `dtype`; float32 may stand beside half precision, and stays."""
    return [None if t is None else t.to(torch.promote_types(t.dtype, dtype)) for t in tensors]


def starts(seq_idx: Tensor) -> Tensor:
    """Numbers of documents (B, L) -> True where one begins; a state before the first step belongs to number 0."""
    before = torch.cat([torch.zeros_like(seq_idx[:, :1]), seq_idx[:, :-1]], 1)
    return seq_idx != before


def refuse(function: str, *, hint: str | None = None, **given: Any) -> None:
    """Raise UsageError if any argument that is not served was given."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise UsageError(f"{function}: {name} is not served by Helix", hint=hint)
