"""The files that say what a dataset's folder holds, as models: `manifest.json`, or `plan.json` and `finished.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helix_core.errors import UsageError
from helix_core.kinds.generator import FieldSpec
from helix_core.untrusted import fits, parse_json, read_json, read_text

PLAN, FINISHED, MANIFEST = "plan.json", "finished.jsonl", "manifest.json"


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class StoredPlan(_Stored):
    """The arguments of a `Plan`."""

    generator: str
    options: dict[str, Any]
    seed: int = Field(ge=0, lt=2**64)
    n: int = Field(ge=1, lt=2**64)
    start: int = Field(ge=0, lt=2**64)
    format: Literal["parquet", "arrow", "safetensors"]
    shard_size: int = Field(ge=1, lt=2**64)
    versions: dict[str, str]


class StoredField(_Stored):
    """The arguments of a `FieldSpec`."""

    dtype: str
    shape: list[int | None]
    meaning: str
    nan: bool

    @model_validator(mode="after")
    def _can_be(self) -> StoredField:
        if any(size is not None and not 0 <= size < 2**31 for size in self.shape) or len(self.shape) > 8:
            raise ValueError(f"no array has the shape {self.shape}")
        self.spec()
        return self

    def spec(self) -> FieldSpec:
        """The field as a generator's schema has it."""
        return FieldSpec(self.dtype, tuple(self.shape), self.meaning, self.nan)


class Shard(_Stored):
    """A finished shard."""

    shard: int = Field(ge=0, lt=2**63)
    file: str = Field(pattern=r"^part-[0-9]{1,20}\.[a-z]+$")
    samples: int = Field(ge=1, lt=2**63)
    bytes: int = Field(ge=0, lt=2**63)
    blake2b: str
    content: str


class StoredManifest(_Stored):
    """A whole dataset."""

    format: Literal["helix-dataset"]
    version: Literal[1]
    plan: StoredPlan
    fields: dict[str, StoredField] = Field(min_length=1)
    content: str
    shards: list[Shard]

    @field_validator("shards")
    @classmethod
    def _in_order(cls, shards: list[Shard]) -> list[Shard]:
        if [shard.shard for shard in shards] != list(range(len(shards))):
            raise ValueError("shards are not numbered from 0")
        return shards

    @model_validator(mode="after")
    def _as_planned(self) -> StoredManifest:
        if sum(shard.samples for shard in self.shards) != self.plan.n:
            raise ValueError(f"shards have {sum(s.samples for s in self.shards)} samples, the plan {self.plan.n}")
        return self


def read_manifest(folder: Path) -> StoredManifest:
    """The manifest of a whole dataset. Raises UsageError if it is missing or damaged."""
    path = folder / MANIFEST
    return fits(StoredManifest, read_json(path, UsageError, finite=False), path, UsageError)


def read_plan(folder: Path) -> StoredPlan:
    """The plan of a dataset under way. Raises UsageError if it is missing or damaged."""
    path = folder / PLAN
    return fits(StoredPlan, read_json(path, UsageError, finite=False), path, UsageError)


def read_finished(folder: Path) -> list[Shard]:
    """The finished shards of a dataset under way; lines that are damaged, by a kill for instance, are left out."""
    path = folder / FINISHED
    found = []
    for line in read_text(path, UsageError).split("\n") if path.exists() else []:
        try:
            found.append(fits(Shard, parse_json(line, path, UsageError), path, UsageError))
        except UsageError:
            continue  # the shard is written again
    return found
