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


def reversible_value_and_grad(
    backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`(params, tokens, targets, reset, weights, key) -> (loss, gradient by name)`, with the memory of one block.

    All (B, L), reset and weights or None; key (1,) or None. Equal to the gradient of `helix_plugin_lm.models.loss` but
    for rounding. F is bound for training, F_infer for inference.
    """

    def head_loss(leaves: Mapping[str, Array], targets: Array, weights: Array | None) -> Array:
        nats = model.nats(F, leaves, model.final_norm(F, leaves, leaves[FIRST], leaves[SECOND]), targets)
        return F.xp.mean(nats) if weights is None else F.xp.sum(nats * weights)

    def block_pull(
        leaves: Mapping[str, Array],
        i: int,
        pull: tuple[Array, Array],
        share: Array | float,
        reset: Array | None,
        key: Array | None,
    ) -> Array:
        """A scalar whose gradient is what block i hands on, given the gradient of its outputs."""
        losses: list[Array] = []
        streams = leaves[FIRST], leaves[SECOND]
        first, second, _ = model.run_block(F, leaves, i, *streams, reset=reset, key=key, losses=losses)
        return F.xp.sum(first * pull[0]) + F.xp.sum(second * pull[1]) + share * sum(losses)

    def embedding_pull(leaves: Mapping[str, Array], tokens: Array, pull: Array, key: Array | None) -> Array:
        return F.xp.sum(model.embed(F, leaves, tokens, key) * pull)

    of_head, of_block, of_embedding = (backend.value_and_grad(f) for f in (head_loss, block_pull, embedding_pull))

    def run(
        params: Mapping[str, Array],
        tokens: Array,
        targets: Array,
        reset: Array | None = None,
        weights: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        losses: list[Array] = []
        with backend.inference():
            share: Array | float = 1.0 if weights is None else F.xp.sum(weights)
            first, second = model.embed(F_infer, params, tokens, key), None
            for i in range(len(model.blocks)):
                first, second, _ = model.run_block(
                    F_infer, params, i, first, second, reset=reset, key=key, losses=losses
                )
        ends = {name: p for name, p in params.items() if not name.startswith("blocks.")}
        value, grads = of_head({**ends, FIRST: first, SECOND: second}, targets, weights)
        for i in reversed(range(len(model.blocks))):
            pull = grads.pop(FIRST), grads.pop(SECOND)
            with backend.inference():
                own = {name: params[name] for name in params if name.startswith(f"blocks.{i}.")}
                first, second = model.invert_block(F_infer, own, i, first, second, reset=reset, key=key)
            _, found = of_block({**own, FIRST: first, SECOND: second}, i, pull, share, reset, key)
            grads |= found
        with backend.inference():
            pulled = grads.pop(FIRST) + grads.pop(SECOND)
        _, found = of_embedding({n: p for n, p in params.items() if n.startswith("embedding")}, tokens, pulled, key)
        with backend.inference():
            grads |= {name: grads[name] + grad for name, grad in found.items()}
            return value + share * sum(losses), {name: grads[name] for name in params}

    return run
