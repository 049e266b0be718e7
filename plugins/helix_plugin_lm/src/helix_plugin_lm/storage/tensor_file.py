"""safetensors files one tensor at a time: read when they are needed, written without a copy of the whole.

The library `safetensors` checks a file; this module reads what it found valid, because NumPy has no bfloat16, and
writes without holding all tensors at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import CheckpointError, HelixError
from helix_core.untrusted import AGAIN, parse_json, refusing, regular

# The format's dtypes as NumPy lays them out; those that NumPy has not, as unsigned integers of their bits.
LAYOUT = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "|u1",
    "F8_E5M2": "|u1",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
HEADER_BYTES, AXES = 32 << 20, 64
"""Most bytes of a header that are read, and most axes of an array of NumPy."""
_CODES = {np.dtype(layout): code for code, layout in LAYOUT.items() if code != "BF16" and not code.startswith("F8")}


@dataclass(frozen=True)
class Tensor:
    """A tensor that is read when it is needed.

    code    the format's name of its dtype: F32, BF16, ...
    read    -> its values in the layout of the file
    origin  the file it is in, for messages
    fresh   whether what `read` returns is nobody else's
    """

    code: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    origin: str = ""
    fresh: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * np.dtype(LAYOUT[self.code]).itemsize

    def numpy(self) -> np.ndarray:
        """Its values in memory of their own; bfloat16 as float32, which holds it exactly."""
        if self.code == "BF16":
            wide: np.ndarray = np.left_shift(self.read(), 16, dtype=np.uint32).view(np.float32)
            return wide
        values = self.read()
        return values if self.fresh else np.array(values)


def of_array(array: np.ndarray) -> Tensor:
    """A tensor of an array. Raises KeyError for a dtype that the format has not."""
    return Tensor(_CODES[array.dtype.newbyteorder("<")], tuple(array.shape), lambda: array)


def open_tensors(path: Path, error: type[HelixError] = CheckpointError) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises `error` if it cannot be read or is none."""
    return open_with_metadata(path, error)[0]


def open_with_metadata(
    path: Path, error: type[HelixError] = CheckpointError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and the texts in its header, both by name. Raises `error` as above."""
    from safetensors import safe_open

    what = "is not a whole safetensors file"
    size = regular(path, error)
    with refusing(path, error, what=what), path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(HEADER_BYTES, size - 8):
            raise ValueError(f"it has {size} bytes, and its header is said to have {length}")
        text = file.read(length)
    with refusing(path, error, what=what), safe_open(path, framework="np"):  # checks lengths, offsets and dtypes
        pass
    header = parse_json(text, path, error)
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in LAYOUT:
            raise error(f"{path}: {name} is of dtype {entry['dtype']}, which Helix does not read")
        shape, width = entry["shape"], np.dtype(LAYOUT[entry["dtype"]]).itemsize
        if len(shape) > AXES or math.prod(max(1, n) for n in shape) * width >= 2**63:  # an axis may be of size 0
            raise error(f"{path}: {name} has the shape {shape}, which no array can have")
        tensors[name] = _stored(path, entry, 8 + length, error)
    return tensors, metadata


def _stored(path: Path, entry: Mapping[str, Any], data: int, error: type[HelixError]) -> Tensor:
    shape, layout = tuple(entry["shape"]), LAYOUT[entry["dtype"]]
    offset = data + entry["data_offsets"][0]

    def read() -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, layout)
        # Read and not mapped: a file that another process cuts short would end this one (SIGBUS).
        count = math.prod(shape)
        with refusing(path, error):
            values = np.fromfile(path, layout, count, offset=offset)
        if len(values) != count:
            raise error(f"{path} was cut short while it was read", hint=AGAIN)
        return values.reshape(shape)

    return Tensor(entry["dtype"], shape, read, str(path), fresh=True)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Write a safetensors file, flushed to disk; returns its size and its BLAKE2b hash.

    Tensors are read one after the other. Raises OSError if the file cannot be written.
    """
    all_ = {name: of_array(t) if isinstance(t, np.ndarray) else t for name, t in tensors.items()}
    order = sorted(all_, key=lambda name: (-np.dtype(LAYOUT[all_[name].code]).itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        begin, end = end, end + all_[name].bytes
        header[name] = {"dtype": all_[name].code, "shape": all_[name].shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.blake2b(digest_size=16)
    with path.open("wb") as file:

        def put(data: Any) -> None:
            file.write(data)
            digest.update(data)

        put(struct.pack("<Q", len(text)))
        put(text)
        for name in order:
            tensor = all_[name]
            values = np.ascontiguousarray(tensor.read(), LAYOUT[tensor.code])
            if values.shape != tensor.shape and values.size != math.prod(tensor.shape):
                raise ValueError(f"{name} has {values.shape}, not {tensor.shape}")
            put(values.reshape(-1).view(np.uint8).data)
            del values  # or the next one would be read beside it
        file.flush()
        os.fsync(file.fileno())
    return 8 + len(text) + end, digest.hexdigest()


def digest_of(path: Path) -> tuple[int, str]:
    """A file's size and its BLAKE2b hash. Raises OSError if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = 0
        while block := file.read(1 << 20):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()
