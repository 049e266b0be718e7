"""Ways to damage the files of a folder, each a function of a random generator: what a seed does once it does again."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Files = dict[str, bytes]
"""A folder's files by their paths in it."""

DEEP = 100_000
TOKENS = (
    *("0", "-1", "1.5", "-0.5", "1e308", "1e999", "2147483648", "9223372036854775808", "18446744073709551616"),
    *("9" * 39, "-" + "9" * 60, "9" * 5000, "1" + "0" * 4000, "NaN", "Infinity", "-Infinity", "null", "true", "false"),
    *('""', '"text"', '"12"', '"\\ud800"', '"\\u0000"', '"../../../etc/passwd"', '"' + "a" * 300 + '"', '"~nobody/x"'),
    *("[]", "{}", "[[]]", "[null]", "[1, 2, 3]", '{"a": 1}', "[" * DEEP + "]" * DEEP, "[" * DEEP, '{"a":' * DEEP),
    *("[" * 40 + "]" * 40, "[" * 900 + "]" * 900),
)
"""What stands in place of a value of JSON."""
TOML_TOKENS = (
    *(t for t in TOKENS if t not in ("NaN", "Infinity", "-Infinity", "null")),
    *("nan", "inf", "-inf", "1979-05-27", "0x7fffffffffffffffffff", "'''x'''", "{a = 1}", "[[1, 'a'], {}]"),
)
_MARK = "\x01here\x01"
_HOLE = json.dumps(_MARK)
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
SPECIALS = {
    "F32": [struct.pack("<f", v) for v in (float("nan"), float("inf"), -float("inf"), -1, 3e38, 1e-40, 2)],
    "F64": [struct.pack("<d", v) for v in (float("nan"), float("inf"), -float("inf"), -1, 1e308, 1e-320, 2)],
    "I32": [struct.pack("<i", v) for v in (-1, -(2**31), 2**31 - 1, 0, 7)],
    "I64": [struct.pack("<q", v) for v in (-1, -(2**63), 2**63 - 1, 0, 7, 2**40)],
    "U8": [bytes([v]) for v in (0, 1, 3, 4, 254, 255)],
}


def damage(folder: Path, files: Files, rng: Random, sign: Callable[[Files], None] | None) -> None:
    """Write files to a new folder, one or two of them damaged; mostly with the hashes that they then need."""
    damaged = dict(files)
    names = sorted(files)
    instead: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2))):
        name = rng.choice(names)
        if name not in damaged:
            continue
        kind = rng.random()
        if kind < 0.04:
            instead[name] = rng.choice(("folder", "fifo", "nothing"))
            del damaged[name]
        elif kind < 0.07:
            damaged[name] = files[rng.choice(names)]
        elif kind < 0.55:
            damaged[name] = _structured(name, damaged[name], rng)
        else:
            damaged[name] = rng.choice(BYTES)(damaged[name], rng)
    if sign is not None and rng.random() < 0.8:
        sign(damaged)
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in damaged.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name, what in instead.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if what == "folder":
            (folder / name).mkdir()
        elif what == "fifo" and hasattr(os, "mkfifo"):
            os.mkfifo(folder / name)


# Of bytes, whatever they mean.


def flipped(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncated(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def longer(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 8, 100))) + data[at:]


def zeroed(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + rng.choice((b"\0", b"\xff", b"[")) * (end - begin) + data[end:]


def doubled(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:end] + data[begin:]


def cut(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def shuffled(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    at = rng.randrange(len(data) + 1)
    return (data[:at] + data[begin:end] + data[at + end - begin :])[: len(data)]


def extreme(data: bytes, rng: Random) -> bytes:
    """A number written over, as binary formats have them."""
    width = rng.choice((1, 2, 4, 4, 8, 8))
    if len(data) < width:
        return data
    near = min(len(data) - width, 400)
    at = rng.randint(0, near) if rng.random() < 0.3 else rng.randint(0, len(data) - width)
    value = (rng.choice(EXTREMES) + rng.choice((0, 0, -1, 1))) % (1 << (8 * width))
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def empty(data: bytes, rng: Random) -> bytes:
    return b""


BYTES = (flipped, flipped, truncated, longer, zeroed, doubled, cut, shuffled, extreme, extreme, extreme, empty)


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 2, 4, 8, 16, 64, 256)))


# Of what a format holds.


def _structured(name: str, data: bytes, rng: Random) -> bytes:
    try:
        if name.endswith(".json"):
            return _json(data.decode(), rng).encode()
        if name.endswith(".jsonl"):
            lines = data.decode().split("\n")
            at = rng.randrange(max(1, len(lines) - 1))
            lines[at] = _json(lines[at], rng)
            return "\n".join(lines).encode()
        if name.endswith(".toml"):
            return _toml(data.decode(), rng).encode()
        if name.endswith((".safetensors", ".state")):
            return _safetensors(data, rng)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error):
        pass  # damaged before
    return rng.choice(BYTES)(data, rng)


def _json(text: str, rng: Random) -> str:
    """JSON with one value or key changed."""
    value = json.loads(text)
    places = list(_places(value))
    if not places or rng.random() < 0.02:
        return rng.choice(TOKENS)
    parent, key = rng.choice(places)
    inner = parent[key]
    kind = rng.random()
    if isinstance(inner, str) and inner.startswith("{") and kind < 0.9:
        parent[key] = _json(inner, rng)  # JSON as a text inside
        return json.dumps(value)
    if kind < 0.1:
        del parent[key]
    elif kind < 0.2 and isinstance(parent, dict):
        parent[rng.choice(("", "x" * 300, key + "_", "name", "files", "\x01", "é"))] = parent.pop(key)
    elif kind < 0.25 and isinstance(parent, dict):
        return json.dumps(value).replace(json.dumps(key) + ":", f"{json.dumps(key)}: 1, {json.dumps(key)}:", 1)
    elif kind < 0.35:
        other, place = rng.choice(places)
        parent[key] = other[place]
        if parent[key] is parent or other is parent[key]:
            parent[key] = None
    elif kind < 0.45 and type(inner) is int:
        parent[key] = rng.choice((inner + 1, inner - 1, -inner, 2 * inner, float(inner), str(inner)))
    else:
        parent[key] = _MARK
        return json.dumps(value).replace(_HOLE, rng.choice(TOKENS))
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):  # put into itself
        return "[]"


def _places(value: Any) -> Any:
    for key in list(value if isinstance(value, dict) else range(len(value))) if isinstance(value, dict | list) else ():
        yield value, key
        yield from _places(value[key])


def _toml(text: str, rng: Random) -> str:
    lines = text.split("\n")
    keyed = [i for i, line in enumerate(lines) if re.match(r"\s*[\w.]+\s*=", line)]
    at = rng.choice(keyed)
    key = lines[at].partition("=")[0]
    kind = rng.random()
    if kind < 0.1:
        del lines[at]
    elif kind < 0.2:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif kind < 0.25:
        lines[at] = rng.choice((f"{key.strip()}_ = 1", "a." * 30_000 + "a = 1", "[" + "a." * 30_000 + "a]", "[model]"))
    elif kind < 0.3:
        lines[at] = "\n".join(f"k{i} = {i}" for i in range(20_000))
    elif "{" in lines[at] and kind < 0.6:
        lines[at] = re.sub(r"= [^,}]+(?=[,}])", lambda _: f"= {rng.choice(TOML_TOKENS)}", lines[at], count=1)
    else:
        lines[at] = f"{key}= {rng.choice(TOML_TOKENS)}"
    return "\n".join(lines)


def _safetensors(data: bytes, rng: Random) -> bytes:
    """A header changed, with its length, or an element of a tensor."""
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].decode()
    body = data[8 + length :]
    if rng.random() < 0.5:
        text = _json(header, rng).encode()
        return struct.pack("<Q", len(text)) + text + body
    tensors = [e for name, e in json.loads(header).items() if name != "__metadata__" and e["dtype"] in SPECIALS]
    entry = rng.choice(tensors)
    values = SPECIALS[entry["dtype"]]
    begin, end = entry["data_offsets"]
    width = len(values[0])
    out = bytearray(body)
    elements = min(end - begin, len(body)) // width  # the offsets may have been damaged before
    for _ in range(rng.choice((1, 1, 3, elements))):
        at = begin + width * rng.randrange(elements)
        out[at : at + width] = rng.choice(values)
    return data[: 8 + length] + bytes(out)
