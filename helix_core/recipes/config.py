"""A recipe: everything a run depends on, in one validated model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from helix_core.models.config import ComponentConfig, ModelConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_duration(value: object) -> object:
    """Seconds from a number or from text such as "90s", "2m", "1.5h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", value)
        if not match:
            raise ValueError('write a duration as "90s", "2m" or "1.5h"')
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    return value


class BackendConfig(_Section):
    """Where the run computes."""

    name: str = Field("auto", description="backend or `plugin/backend`; auto takes the best that can train here")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    compile: bool = Field(False, description="compile the training step with the backend's compiler")
    kernels: dict[str, str] = Field({}, description="pin ops to kernels: selective_scan = 'core/reference'")


class DataConfig(_Section):
    """What the run learns from: bytes of files."""

    source: str | tuple[str, ...] = Field(
        "stdlib", description="a file, folder or glob, or several; 'stdlib' is this Python's standard library"
    )
    validation: float = Field(0.05, gt=0, lt=1, description="share of the files (or of the bytes of one) held out")
    reset: bool = Field(False, description="reset the state where a row crosses into another document")


class TrainingConfig(_Section):
    """How long and in what portions."""

    steps: int | None = Field(None, gt=0, description="optimizer steps; or give a duration")
    duration: Annotated[float | None, BeforeValidator(parse_duration)] = Field(
        None, gt=0, description='wall time such as "2m", turned into steps by timing a few first'
    )
    batch_size: int = Field(16, gt=0, description="rows per micro-batch")
    seq_len: int = Field(256, gt=0, description="bytes per row")
    chunk: int | None = Field(
        None,
        gt=0,
        description="bytes per chunk of a row: memory stops growing with seq_len, for a third more time; default: none",
    )
    accumulation: int = Field(1, gt=0, description="micro-batches per optimizer step")
    clip: float | None = Field(1.0, gt=0, description="largest global gradient norm")
    eval_every: int | None = Field(None, gt=0, description="steps between evaluations; default: at the end only")
    eval_bytes: int | None = Field(200_000, gt=0, description="held-out bytes of those evaluations; None: all")
    checkpoint_every: int | None = Field(None, gt=0, description="steps between checkpoints; default: a tenth")
    keep: int = Field(2, gt=0, description="checkpoints kept")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.steps is None and self.duration is None:
            raise ValueError("give training.steps or training.duration")
        return self


class SampleConfig(_Section):
    """The sample written at the end of a run."""

    prompt: str = "def "
    max_bytes: int = Field(400, ge=0)
    temperature: float = Field(0.7, ge=0)
    top_k: int | None = Field(None, gt=0)
    top_p: float | None = Field(0.95, gt=0, le=1)


class Recipe(_Section):
    """One run: model, data, training, optimizer, schedule, backend."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    model: ModelConfig
    data: DataConfig = DataConfig()
    training: TrainingConfig
    optimizer: ComponentConfig = ComponentConfig(name="adamw")
    schedule: ComponentConfig = ComponentConfig(name="cosine")
    backend: BackendConfig = BackendConfig()
    sample: SampleConfig = SampleConfig()
