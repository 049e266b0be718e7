"""Samples to bytes and back, in three formats that other tools read.

Parquet and Arrow: one row per sample, one column per field; arrays are lists, nested and of fixed size where the
field's shape is. safetensors: one tensor per field, samples along the first axis; a field of varying length is
concatenated, with `FIELD.offsets` (N + 1) saying where each sample's part begins.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from helix_core.kinds.generator import FieldSpec, Sample

Schema = Mapping[str, FieldSpec]


def to_parquet(samples: Sequence[Sample], schema: Schema) -> bytes:
    """The samples as a Parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(_table(samples, schema), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes, schema: Schema) -> list[Sample]:
    """The samples of a Parquet file."""
    import pyarrow.parquet as pq

    return _samples(pq.read_table(io.BytesIO(data)), schema)


def to_arrow(samples: Sequence[Sample], schema: Schema) -> bytes:
    """The samples as an Arrow IPC file (Feather V2)."""
    import pyarrow as pa

    table = _table(samples, schema)
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def from_arrow(data: bytes, schema: Schema) -> list[Sample]:
    """The samples of an Arrow IPC file."""
    import pyarrow as pa

    return _samples(pa.ipc.open_file(io.BytesIO(data)).read_all(), schema)


def to_safetensors(samples: Sequence[Sample], schema: Schema) -> bytes:
    """The samples as a safetensors file."""
    from safetensors.numpy import save

    tensors = {}
    for name, spec in schema.items():
        values = [_bytes_of(s[name]) if spec.dtype == "str" else np.asarray(s[name]) for s in samples]
        if _varies(spec):
            tensors[name] = np.concatenate(values)
            tensors[f"{name}.offsets"] = np.cumsum([0, *map(len, values)], dtype=np.int64)
        else:
            tensors[name] = np.stack(values)
    text = [name for name, spec in schema.items() if spec.dtype == "str"]
    return save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"text": json.dumps(text)})


def from_safetensors(data: bytes, schema: Schema) -> list[Sample]:
    """The samples of a safetensors file."""
    from safetensors.numpy import load

    tensors = load(data)
    columns = {}
    for name, spec in schema.items():
        if _varies(spec):
            bounds = tensors[f"{name}.offsets"]
            column = [tensors[name][a:b] for a, b in itertools.pairwise(bounds)]
            columns[name] = [part.tobytes().decode() for part in column] if spec.dtype == "str" else column
        else:
            columns[name] = list(tensors[name])
    return _rows(columns)


FORMATS: dict[str, tuple[Callable[..., bytes], Callable[..., list[Sample]], str]] = {
    "parquet": (to_parquet, from_parquet, "parquet"),
    "arrow": (to_arrow, from_arrow, "arrow"),
    "safetensors": (to_safetensors, from_safetensors, "safetensors"),
}
"""Writer, reader and file ending of each format."""


def _table(samples: Sequence[Sample], schema: Schema) -> Any:
    import pyarrow as pa

    return pa.table({name: _column([s[name] for s in samples], spec) for name, spec in schema.items()})


def _column(values: Sequence[Any], spec: FieldSpec) -> Any:
    import pyarrow as pa

    if spec.dtype == "str":
        return pa.array(values, pa.string())
    arrays = [np.asarray(value) for value in values]
    joined = np.concatenate(arrays) if spec.shape else np.stack(arrays)
    column = pa.array(joined.ravel())
    for size in reversed(spec.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    if not spec.shape:
        return column
    if spec.shape[0] is not None:
        return pa.FixedSizeListArray.from_arrays(column, spec.shape[0])
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), column)


def _samples(table: Any, schema: Schema) -> list[Sample]:
    columns = {}
    for name, spec in schema.items():
        column = table[name].combine_chunks()
        if spec.dtype == "str":
            columns[name] = column.to_pylist()
            continue
        flat = column
        while hasattr(flat, "flatten") and flat.type.num_fields:
            flat = flat.flatten()
        values = flat.to_numpy(zero_copy_only=False).astype(spec.dtype, copy=False)
        if _varies(spec):
            bounds = column.offsets.to_numpy()
            values = values.reshape(-1, *spec.shape[1:])
            columns[name] = [values[a:b] for a, b in itertools.pairwise(bounds)]
        else:
            columns[name] = list(values.reshape(len(column), *spec.shape))
    return _rows(columns)


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[Sample]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _varies(spec: FieldSpec) -> bool:
    return spec.dtype == "str" or (bool(spec.shape) and spec.shape[0] is None)


def _bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
