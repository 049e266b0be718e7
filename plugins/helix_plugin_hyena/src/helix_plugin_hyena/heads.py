"""How channels, heads and long filters go together, in both kinds of Hyena."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from helix_core.kinds.layer import LayerConfig

Array = Any


@dataclass(frozen=True)
class Heads:
    """D channels in `num_heads` heads, of N each.

    Heads share the filters of their channels, of which there are N; or, with `outer_product`, each head has one filter,
    which the N x N products of its keys and values all go through.
    """

    d_model: int
    num_heads: int
    outer_product: bool

    @property
    def width(self) -> int:
        """Channels of a head, N."""
        return self.d_model // self.num_heads

    @property
    def filters(self) -> int:
        """Filters of a convolution."""
        return self.num_heads if self.outer_product else self.width

    @property
    def channels(self) -> int:
        """Channels of a convolution."""
        return self.d_model * (self.width if self.outer_product else 1)

    @property
    def read_flops(self) -> float:
        """Of `read`, for a token."""
        return 2.0 * self.channels if self.outer_product else 0.0

    def spread(self, xp: Any, of_filters: Array, axis: int) -> Array:
        """What belongs to filters along an axis, to the channels that go through them."""
        copies = self.channels // self.filters
        if self.outer_product:
            return xp.repeat(of_filters, copies, axis=axis)
        times = [1] * len(of_filters.shape)
        times[axis] = copies
        return xp.tile(of_filters, tuple(times))

    def products(self, xp: Any, k: Array, v: Array) -> Array:
        """Keys and values (B, L, D) -> what is convolved (B, L, channels): v_i k_j of each head, or v k."""
        if not self.outer_product:
            return v * k
        k, v = (xp.reshape(a, (*a.shape[:2], self.num_heads, self.width)) for a in (k, v))
        both = v[..., :, None] * k[..., None, :]
        return xp.reshape(both, (*both.shape[:2], self.channels))

    def read(self, xp: Any, y: Array, q: Array) -> Array:
        """What was convolved (B, L, channels) and queries (B, L, D) -> (B, L, D): Σ_j y_ij q_j of each head, or y q."""
        if not self.outer_product:
            return y * q
        batch, length, _ = q.shape
        y = xp.reshape(y, (batch, length, self.num_heads, self.width, self.width))
        q = xp.reshape(q, (batch, length, self.num_heads, self.width, 1))
        return xp.reshape(xp.matmul(y, q), (batch, length, self.d_model))


class OperatorConfig(LayerConfig):
    """Options of both kinds of Hyena."""

    order: int = Field(2, ge=2, le=1000, description="N: gates, and one more than there are long convolutions")
    num_heads: int = Field(1, gt=0, description="heads; the channels of a head have filters of their own, heads share")
    outer_product: bool = Field(
        False, description="MultiHyena: a filter for each head, over the outer products of its keys and values"
    )
    short_filter_order: int = Field(3, gt=0, description="taps of the short convolution")

    @model_validator(mode="after")
    def _fits(self) -> OperatorConfig:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} must be divisible by num_heads = {self.num_heads}")
        if self.outer_product and self.order != 2:
            raise ValueError("outer_product is defined for order = 2: queries, keys and values")
        return self

    @property
    def heads(self) -> Heads:
        """How channels are split into heads."""
        return Heads(self.d_model, self.num_heads, self.outer_product)

    @property
    def filters(self) -> int:
        """Filters in one direction."""
        return (self.order - 1) * self.heads.filters
