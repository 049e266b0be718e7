"""Gradients of a reversible model with activation memory that does not grow with its depth.

The forward pass keeps the two streams behind the last block and nothing else. The backward pass goes from the last
block to the first: it computes a block's inputs from its outputs, runs that one block again with its gradient recorded,
and drops it. The gradient is that of the whole model but for the rounding of the inputs found that way; time grows by
two forward passes.

Source: Gomez, Ren, Urtasun and Grosse, The Reversible Residual Network, 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from helix_plugin_lm.models import LanguageModel

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable

Array = Any
FIRST, SECOND = "stream:first", "stream:second"
"""The two streams (B, L, D), named among the parameters as what gradients flow into."""


def reversible_value_and_grad(
    backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`(params, tokens, targets, reset, weights, key) -> (loss, gradient by name)`, with the memory of one block.

    All (B, L), reset and weights or None; key (1,) or None. Equal to the gradient of `helix_plugin_lm.models.loss` but
    for rounding. F is bound for training, F_infer for inference.
    """
    return _Reversible(backend, model, F, F_infer)


class _Reversible:
    """The whole pass; a vector-Jacobian product is the gradient of the sum of outputs times their cotangents."""

    def __init__(self, backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable) -> None:
        self.backend, self.model, self.F, self.F_infer = backend, model, F, F_infer
        self._head_gradient = backend.value_and_grad(self._head)
        self._block_gradient = backend.value_and_grad(self._block)
        self._embedding_gradient = backend.value_and_grad(self._embedding)

    def __call__(
        self,
        params: Mapping[str, Array],
        tokens: Array,
        targets: Array,
        reset: Array | None = None,
        weights: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Forward to the streams behind the last block, then back: the head, the blocks, the embedding."""
        blocks = range(len(self.model.blocks))
        with self.backend.inference():
            weight: Array | float = 1.0 if weights is None else self.F.xp.sum(weights)
            first, second, extra = self._forward(params, tokens, reset, key)
        outside = {name: p for name, p in params.items() if not name.startswith("blocks.")}
        value, grads = self._head_gradient({**outside, FIRST: first, SECOND: second}, targets, weights)
        for i in reversed(blocks):
            cotangents = grads.pop(FIRST), grads.pop(SECOND)
            inside = {name: p for name, p in params.items() if name.startswith(f"blocks.{i}.")}
            with self.backend.inference():
                first, second = self.model.invert_block(self.F_infer, inside, i, first, second, reset=reset, key=key)
            leaves = {**inside, FIRST: first, SECOND: second}
            grads |= self._block_gradient(leaves, i, cotangents, weight, reset, key)[1]
        with self.backend.inference():
            cotangent = grads.pop(FIRST) + grads.pop(SECOND)
        embedding = {name: p for name, p in params.items() if name.startswith("embedding")}
        _, of_embedding = self._embedding_gradient(embedding, tokens, cotangent, key)
        with self.backend.inference():
            # A tied embedding has a gradient of the head, too.
            grads |= {name: grads[name] + grad for name, grad in of_embedding.items()}
            return value + weight * extra, {name: grads[name] for name in params}

    def _forward(
        self, params: Mapping[str, Array], tokens: Array, reset: Array | None, key: Array | None
    ) -> tuple[Array, Array, Array | float]:
        """The streams behind the last block, and what layers add to the loss."""
        losses: list[Array] = []
        first, second = self.model.embed(self.F_infer, params, tokens, key), None
        for i in range(len(self.model.blocks)):
            first, second, _ = self.model.run_block(
                self.F_infer, params, i, first, second, reset=reset, key=key, losses=losses
            )
        return first, second, sum(losses)

    def _head(self, leaves: Mapping[str, Array], targets: Array, weights: Array | None) -> Array:
        """The loss, given the streams behind the last block."""
        x = self.model.final_norm(self.F, leaves, leaves[FIRST], leaves[SECOND])
        nats = self.model.nats(self.F, leaves, x, targets)
        return self.F.xp.mean(nats) if weights is None else self.F.xp.sum(nats * weights)

    def _block(
        self,
        leaves: Mapping[str, Array],
        i: int,
        cotangents: tuple[Array, Array],
        weight: Array | float,
        reset: Array | None,
        key: Array | None,
    ) -> Array:
        """A scalar with the gradient of the loss: outputs of block i times their cotangents, and what it adds to it."""
        losses: list[Array] = []
        first, second, _ = self.model.run_block(
            self.F, leaves, i, leaves[FIRST], leaves[SECOND], reset=reset, key=key, losses=losses
        )
        xp = self.F.xp
        return xp.sum(first * cotangents[0]) + xp.sum(second * cotangents[1]) + weight * sum(losses)

    def _embedding(self, leaves: Mapping[str, Array], tokens: Array, cotangent: Array, key: Array | None) -> Array:
        return self.F.xp.sum(self.model.embed(self.F, leaves, tokens, key) * cotangent)
