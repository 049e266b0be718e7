"""Spectra of filters, kept for as long as the filter: a model that does not train computes each once.

The key is the tensor itself, held weakly, and its version, which torch counts up whenever it is written to. In training
a filter lives from the forward pass to the backward pass, so that both share one spectrum. Tensors of
`torch.inference_mode` have no version; theirs are not kept.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def kept_spectrum(filter: Tensor, points: int, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it returned for the same values of the same filter and as many points."""
    if filter.is_inference():
        return compute()
    version, spectra = _kept.get(filter, (-1, {}))
    if version != filter._version:
        version, spectra = filter._version, {}
        _kept[filter] = version, spectra
    if points not in spectra:
        spectra[points] = compute()
    found: Tensor = spectra[points]
    return found
