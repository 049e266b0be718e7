"""The options that Mamba-2 and Mamba-3 share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from helix_core.kinds.layer import LayerConfig


class HeadsConfig(LayerConfig):
    """An inner width cut into heads, groups of heads that share B and C, and where the step sizes start."""

    expand: int = Field(2, gt=0, description="inner width over d_model, E = expand * d_model")
    head_dim: int = Field(64, gt=0, description="channels of a head, P; there are H = E / P heads")
    n_groups: int = Field(1, gt=0, description="groups of heads that share B and C, G")
    dt_min: float = Field(0.001, gt=0, description="smallest initial step size")
    dt_max: float = Field(0.1, gt=0, description="largest initial step size")
    dt_init_floor: float = Field(1e-4, gt=0, description="floor of the initial step sizes")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.d_inner % self.head_dim:
            raise ValueError(f"head_dim must divide expand * d_model = {self.d_inner}")
        if self.n_heads % self.n_groups:
            raise ValueError(f"n_groups must divide the number of heads, {self.n_heads}")
        return self

    @property
    def d_inner(self) -> int:
        """Channels of all heads."""
        return self.expand * self.d_model

    @property
    def n_heads(self) -> int:
        """Heads of `head_dim` channels."""
        return self.d_inner // self.head_dim
