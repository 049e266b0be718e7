"""A recipe: everything a run depends on, in one validated model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from helix_core.kinds.component import ComponentConfig
from helix_core.suggest import did_you_mean
from helix_plugin_lm.models.config import ModelConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


def parse_duration(value: object) -> object:
    """Seconds from a number or from text such as "90s", "2m", "1.5h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", value)
        if not match:
            raise ValueError('write a duration as "90s", "2m" or "1.5h"')
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    return value


def op_name(value: str) -> str:
    """The name of an op of the table. Raises ValueError for another."""
    from helix_core.ops import OPS

    if value not in OPS:
        raise ValueError(f"no op has that name{did_you_mean(value, OPS)}")
    return value


class BackendConfig(_Section):
    """Where the run computes."""

    name: str = Field("auto", description="backend or `plugin/backend`; auto takes the best that can train here")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    compile: bool = Field(False, description="compile the training step with the backend's compiler")
    kernels: dict[Annotated[str, AfterValidator(op_name)], str] = Field(
        {}, description="pin ops to kernels: selective_scan = 'core/reference'"
    )


def name_or_table(value: object) -> object:
    """A component given by its name alone, as the table it stands for."""
    return {"name": value} if isinstance(value, str) else value


class DataConfig(_Section):
    """What the run learns from: bytes of files, or samples of a generator."""

    source: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "stdlib", description="a file, folder or glob, or several; 'stdlib' is this Python's standard library"
    )
    validation: float = Field(0.05, gt=0, lt=1, description="share of the files (or of the bytes of one) held out")
    tokenizer: str | None = Field(
        None, description="a tokenizer.json, which the run folder gets a copy of; default: tokens are bytes"
    )
    reset: bool = Field(False, description="reset the state where a row crosses into another document")
    generator: Annotated[ComponentConfig | None, BeforeValidator(name_or_table)] = Field(
        None, description="instead of files: a generator's name, or a table of its name and options"
    )
    seed: int | None = Field(None, ge=0, lt=2**64, description="of the generator; default: the recipe's")
    samples: int | None = Field(None, gt=0, description="different training samples; default: always new ones")
    validation_samples: int = Field(1000, gt=0, description="held-out samples")


class TrainingConfig(_Section):
    """How long and in what portions."""

    init: str | None = Field(None, description="a run, or a checkpoint of one, whose parameters this one starts from")
    steps: int | None = Field(None, gt=0, description="optimizer steps; or give a duration")
    duration: Annotated[float | None, BeforeValidator(parse_duration)] = Field(
        None, gt=0, allow_inf_nan=False, description='wall time such as "2m", turned into steps by timing a few first'
    )
    batch_size: int = Field(16, gt=0, description="rows per micro-batch")
    seq_len: int = Field(256, gt=0, description="bytes or tokens per row")
    chunk: int | None = Field(
        None,
        gt=0,
        description="bytes or tokens per chunk of a row: memory no longer grows with seq_len, a third more time",
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
    """The texts written at the end of a run."""

    prompt: str = "def "
    count: int = Field(3, gt=0, le=100, description="texts, each with a seed of its own")
    max_bytes: int = Field(400, ge=0, description="bytes of each text at most")
    temperature: float = Field(0.9, ge=0, description="lower ones lead small models into runs of blanks")
    top_k: int | None = Field(None, gt=0)
    top_p: float | None = Field(0.95, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)


OF_FILES = (
    "data.source",
    "data.validation",
    "data.tokenizer",
    "data.reset",
    "training.seq_len",
    "training.eval_bytes",
    "sample",
)
OF_GENERATORS = ("data.seed", "data.samples", "data.validation_samples")
_INSTEAD = {
    "data.validation": "; data.validation_samples says how many samples are held out",
    "training.seq_len": "; the generator's own options fix the length of its samples",
}


class Recipe(_Section):
    """One run: model, data, training, optimizer, schedule, backend."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**64)
    model: ModelConfig
    data: DataConfig = DataConfig()
    training: TrainingConfig
    optimizer: ComponentConfig = ComponentConfig(name="adamw")
    lr_schedule: ComponentConfig = ComponentConfig(name="cosine")
    backend: BackendConfig = BackendConfig()
    sample: SampleConfig = SampleConfig()

    @property
    def idle(self) -> tuple[str, ...]:
        """Keys that mean nothing for this recipe's kind of data."""
        return OF_FILES if self.data.generator else OF_GENERATORS

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Recipe:
        for key in self.idle:
            section, _, name = key.partition(".")
            given: BaseModel = getattr(self, section)
            if section in self.model_fields_set and (not name or name in given.model_fields_set):
                kind = "a generator" if self.data.generator else "files"
                raise ValueError(f"{key} means nothing for data of {kind}: remove it{_INSTEAD.get(key, '')}")
        return self
