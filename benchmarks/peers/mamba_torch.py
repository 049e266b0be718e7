"""The model in mambapy and in transformers, with the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn

from peers import mamba
from side_by_side.row import NotHere


def work(shape: list[int], what: str, library: str) -> Callable[[], Any]:
    """library: mambapy, or transformers, or transformers with mambapy's scan."""
    values = {name: torch.from_numpy(a) for name, a in mamba.params().items()}
    head, forward, leaves = mambapy_model(values) if library == "mambapy" else hf_model(values, library)
    tokens, targets = (torch.from_numpy(a) for a in mamba.tokens(shape))
    if what == "prefill":

        def prefill() -> Any:
            with torch.no_grad():
                return forward(tokens)[:, -1] @ head.T

        return prefill

    def train() -> Any:
        logits = forward(tokens) @ head.T
        loss = nn.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        return [loss.detach(), *(grads[name].reshape(values[name].shape) for name in mamba.WATCHED)]

    return train


Parts = tuple[Tensor, Callable[[Tensor], Tensor], dict[str, Tensor]]


def mambapy_model(values: dict[str, Tensor]) -> Parts:
    """The head, tokens -> normed hidden states, and the parameters by our names."""
    try:
        from mambapy.mamba import Mamba, MambaConfig, RMSNorm
    except ImportError as error:
        raise NotHere("mambapy is not installed") from error
    body = Mamba(MambaConfig(d_model=mamba.D_MODEL, n_layers=mamba.LAYERS))
    last = RMSNorm(mamba.D_MODEL, mamba.EPS)
    embedding = torch.nn.Parameter(values["embedding.weight"].clone())
    leaves: dict[str, Tensor] = {"embedding.weight": embedding, "norm.weight": last.weight}
    for i, layer in enumerate(body.layers):
        leaves |= {f"blocks.{i}.mixer.{name}": p for name, p in layer.mixer.named_parameters()}
        leaves[f"blocks.{i}.mixer_norm.weight"] = layer.norm.weight
    _fill(leaves, values)
    return embedding, lambda tokens: last(body(nn.embedding(tokens, embedding))), leaves


def hf_model(values: dict[str, Tensor], library: str) -> Parts:
    try:
        from transformers import MambaConfig, MambaModel
    except ImportError as error:
        raise NotHere("transformers is not installed") from error
    config = MambaConfig(
        vocab_size=mamba.VOCAB,
        hidden_size=mamba.D_MODEL,
        num_hidden_layers=mamba.LAYERS,
        use_mambapy=library != "transformers",
    )
    body = MambaModel(config).train()
    leaves: dict[str, Tensor] = {"embedding.weight": body.embeddings.weight, "norm.weight": body.norm_f.weight}
    for i, layer in enumerate(body.layers):
        leaves |= {f"blocks.{i}.mixer.{name}": p for name, p in layer.mixer.named_parameters()}
        leaves[f"blocks.{i}.mixer_norm.weight"] = layer.norm.weight
    _fill(leaves, values)
    return body.embeddings.weight, lambda tokens: body(tokens, use_cache=False).last_hidden_state, leaves


def _fill(leaves: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            leaves[name].copy_(value.reshape(leaves[name].shape))
