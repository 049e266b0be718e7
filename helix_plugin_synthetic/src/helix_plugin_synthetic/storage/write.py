"""Writing a dataset so that a kill, a full disk or a second try never leaves or meets half a file.

A folder under way has `plan.json` and `finished.jsonl`, a line per finished shard; a whole one has `manifest.json`.
Every file is flushed under another name and renamed, so a file under its own name is whole.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from helix_core.durable import TEMPORARY, clear_leftovers, write_file
from helix_core.errors import DataError, UsageError
from helix_core.kinds.generator import FieldSpec, digest
from helix_plugin_synthetic.storage.formats import FORMATS
from helix_plugin_synthetic.storage.manifest import FINISHED, MANIFEST, PLAN, read_finished, read_manifest, read_plan
from helix_plugin_synthetic.storage.plan import Plan

Record = dict[str, Any]


def write_dataset(
    plan: Plan, folder: str | Path, *, workers: int = 1, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Write the dataset of a plan, or what is missing of it, and return its manifest.

    The bytes do not depend on `workers`, nor on how often the writing was interrupted. `progress` is called with the
    samples of every shard, at once for those that were there. Raises UsageError if the folder holds something else,
    DataError if it cannot be written; finished shards stay, and the same call goes on from them.
    """
    folder = Path(folder)
    if workers < 1:
        raise UsageError(f"{workers} workers cannot write anything: give at least 1")
    try:
        records = _claim(plan, folder)
        missing = [k for k in range(plan.shards) if k not in records]
        for k in records:
            if progress:
                progress(len(plan.indices(k)))
        for record in _write(plan, folder, missing, workers):
            with (folder / FINISHED).open("a") as log:
                log.write(json.dumps(record) + "\n")
            records[record["shard"]] = record
            if progress:
                progress(record["samples"])
        manifest = _manifest(plan, [records[k] for k in range(plan.shards)])
        write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
        for name in (PLAN, FINISHED):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write the dataset to {folder}: {error.strerror or error}",
            hint="finished shards are kept; free some space and give the same command again",
        ) from error
    return manifest


def file_digest(data: bytes) -> str:
    """The fingerprint of a file in the manifest."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def fields_as_json(schema: dict[str, FieldSpec]) -> dict[str, Any]:
    """A schema for JSON."""
    return {
        name: {"dtype": f.dtype, "shape": list(f.shape), "meaning": f.meaning, "nan": f.nan}
        for name, f in schema.items()
    }


def _claim(plan: Plan, folder: Path) -> dict[int, Record]:
    """Make the folder ours, or find out what of this very plan is there: records by shard."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(plan.as_dict()))
    here = {path.name for path in folder.iterdir()}
    for name in (MANIFEST, PLAN):
        if name not in here:
            continue
        try:
            stored = read_manifest(folder).plan if name == MANIFEST else read_plan(folder)
        except UsageError as error:
            raise UsageError(f"{folder / name} is damaged: {error.message}", hint="choose another folder") from error
        found = stored.model_dump()
        if found != wanted:
            differ = sorted(k for k in wanted if found.get(k) != wanted[k])
            raise UsageError(
                f"{folder} holds another dataset: {', '.join(f'{k} is {found.get(k)!r}' for k in differ)}",
                hint="choose another folder, or give the options of that dataset",
            )
        return _whole(folder, name)
    ours = {name for name in here if name.startswith(TEMPORARY)}
    if here - ours:
        raise UsageError(
            f"{folder} is not empty and holds no dataset: {', '.join(sorted(here - ours)[:3])}",
            hint="choose another folder",
        )
    write_file(folder / PLAN, json.dumps(wanted, indent=1).encode() + b"\n")
    return {}


def _whole(folder: Path, source: str) -> dict[int, Record]:
    """The records of shards whose files are as they were written; the others are written again."""
    clear_leftovers(folder)
    records = read_manifest(folder).shards if source == MANIFEST else read_finished(folder)
    kept = {}
    for record in records:
        path = folder / record.file
        if path.is_file() and file_digest(path.read_bytes()) == record.blake2b:
            kept[record.shard] = record.model_dump()
    return kept


def _write(plan: Plan, folder: Path, missing: list[int], workers: int) -> Iterator[Record]:
    one = partial(write_shard, plan, folder)
    if workers == 1 or len(missing) < 2:
        yield from map(one, missing)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        jobs = [pool.submit(one, shard) for shard in missing]
        try:
            for job in jobs:
                yield job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_shard(plan: Plan, folder: Path, shard: int) -> Record:
    """Generate one shard, write it, and return its record for the manifest."""
    generator = plan.make()
    samples = plan.shard_samples(shard, generator)
    data = FORMATS[plan.format][0](samples, generator.schema())
    write_file(folder / plan.file(shard), data)
    return {
        "shard": shard,
        "file": plan.file(shard),
        "samples": len(samples),
        "bytes": len(data),
        "blake2b": file_digest(data),
        "content": digest(samples),
    }


def _manifest(plan: Plan, records: list[Record]) -> dict[str, Any]:
    return {
        "format": "helix-dataset",
        "version": 1,
        "plan": plan.as_dict(),
        "fields": fields_as_json(plan.make().schema()),
        "content": hashlib.blake2b("".join(r["content"] for r in records).encode(), digest_size=16).hexdigest(),
        "shards": records,
    }
