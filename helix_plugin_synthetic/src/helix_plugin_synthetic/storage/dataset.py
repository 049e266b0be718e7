"""Reading a dataset back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_core.errors import DataError, UsageError
from helix_core.kinds.generator import FieldSpec, Sample
from helix_plugin_synthetic.storage.formats import FORMATS
from helix_plugin_synthetic.storage.plan import Plan
from helix_plugin_synthetic.storage.write import MANIFEST, PLAN, file_digest


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
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}", hint=_AGAIN) from error
        if len(data) != record["bytes"] or file_digest(data) != record["blake2b"]:
            what = f"{len(data)} bytes of {record['bytes']}" if len(data) != record["bytes"] else "other content"
            raise DataError(f"{path} is damaged: {what}", hint=_AGAIN)
        return FORMATS[self.plan.format][1](data, self.schema)


_AGAIN = "the `helix data generate` command that made the dataset writes damaged shards again"


def open_dataset(folder: str | Path) -> Dataset:
    """A dataset's manifest and access to its samples. Raises UsageError if the folder holds no whole dataset."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest.get("format") != "helix-dataset":
            raise ValueError("its manifest is of something else")
        plan = Plan(**manifest["plan"])
        schema = {
            name: FieldSpec(f["dtype"], tuple(f["shape"]), f["meaning"], f["nan"])
            for name, f in manifest["fields"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if (folder / PLAN).exists():
            raise UsageError(f"the dataset in {folder} is not finished", hint=_AGAIN) from error
        raise UsageError(f"{folder} is not a dataset: {error}", hint="`helix data generate` makes one") from error
    return Dataset(folder, plan, schema, manifest)
