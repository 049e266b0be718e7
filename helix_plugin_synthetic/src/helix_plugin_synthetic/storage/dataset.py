"""Reading a dataset back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_core.errors import DataError, UsageError
from helix_core.kinds.generator import FieldSpec, Sample
from helix_core.untrusted import read_bytes, refusing, regular
from helix_plugin_synthetic.storage.formats import FORMATS
from helix_plugin_synthetic.storage.manifest import PLAN, read_manifest
from helix_plugin_synthetic.storage.plan import Plan
from helix_plugin_synthetic.storage.write import file_digest


@dataclass(frozen=True)
class Dataset:
    """A whole dataset; iterating gives its samples in order, one shard in memory at a time."""

    folder: Path
    plan: Plan
    schema: dict[str, FieldSpec]
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return self.plan.n

    def __iter__(self) -> Iterator[Sample]:
        for record in self.manifest["shards"]:
            yield from self.shard(record["shard"])

    def shard(self, k: int) -> list[Sample]:
        """The samples of one shard. Raises DataError if its file is missing, truncated or altered."""
        record = self.manifest["shards"][k]
        path = self.folder / record["file"]
        size = regular(path, DataError)
        if size != record["bytes"]:
            raise DataError(f"{path} is damaged: {size} bytes of {record['bytes']}", hint=_AGAIN)
        data = read_bytes(path, DataError)
        if file_digest(data) != record["blake2b"]:
            raise DataError(f"{path} is damaged: other content", hint=_AGAIN)
        with refusing(path, DataError, hint=_AGAIN):
            samples = FORMATS[self.plan.format][1](data, self.schema, record["samples"])
        for sample in samples:
            for name, field in self.schema.items():
                if problem := field.problem(sample[name]):
                    raise DataError(f"{path} is damaged: {name} {problem}", hint=_AGAIN)
        return samples


_AGAIN = "the `helix data generate` command that made the dataset writes damaged shards again"


def open_dataset(folder: str | Path) -> Dataset:
    """A dataset's manifest and access to its samples. Raises UsageError if the folder holds no whole dataset."""
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except UsageError as error:
        if (folder / PLAN).exists():
            raise UsageError(f"the dataset in {folder} is not finished", hint=_AGAIN) from error
        raise UsageError(
            f"{folder} is not a dataset: {error.message}", hint="`helix data generate` makes one"
        ) from error
    schema = {name: f.spec() for name, f in manifest.fields.items()}
    return Dataset(folder, Plan(**manifest.plan.model_dump()), schema, manifest.model_dump())
