"""The config of a language model: one pydantic model from which everything is built."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from helix_core.kinds.component import ComponentConfig

MOST_LAYERS = 2048


class ModelConfig(BaseModel):
    """A byte- or token-level language model: embedding, blocks of norm -> mixer -> residual, norm, head.

    >>> from helix_plugin_lm.models import ModelConfig
    >>> config = ModelConfig(d_model=64, n_layers=4, mixer=[{"name": "mamba", "d_state": 8}, {"name": "attention"}])
    >>> [(mixer.name, mixer.options) for mixer in config.mixer]
    [('mamba', {'d_state': 8}), ('attention', {})]
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    vocab_size: int = Field(256, gt=0, description="256 for bytes")
    d_model: int = Field(gt=0, description="width of the residual stream")
    n_layers: int = Field(gt=0, le=MOST_LAYERS, description="number of blocks")
    mixer: tuple[ComponentConfig, ...] = Field(
        description="the sequence-mixing layer, or a list of them that the blocks go through in turn"
    )
    mlp: tuple[ComponentConfig, ...] | None = Field(
        None, description="a second layer in every block, after the mixer; a list is gone through like the mixers"
    )
    norm: Literal["rms_norm", "layer_norm", "zero_centered_rms_norm"] = Field(
        "rms_norm", description="in front of every layer and of the head; zero-centred ones multiply by 1 + weight"
    )
    norm_eps: float = Field(1e-5, gt=0)
    embedding_norm: bool = Field(False, description="a norm of the embeddings too, as in RWKV")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the embeddings and of what each layer adds that is dropped in training"
    )
    stochastic_depth: float = Field(
        0.0, ge=0, lt=1, description="chance that a row skips the last block in training; falls linearly to the first"
    )
    reversible: bool = Field(
        False,
        description="two streams of residuals whose blocks run backwards: training memory does not grow with n_layers",
    )
    tie_embeddings: bool = Field(True, description="use the embedding as the output head")

    @model_validator(mode="after")
    def _two_parts(self) -> ModelConfig:
        if self.reversible and self.mlp is None:
            raise ValueError("reversible blocks have two parts: give an mlp too")
        return self

    @field_validator("mixer", "mlp", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict | ComponentConfig):
            return (value,)
        if isinstance(value, list | tuple) and not value:
            raise ValueError(f"name at least one {info.field_name}")
        return value
