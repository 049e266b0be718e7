"""Files that a stranger may have made: read as plain data, or refused by an error that names the file and the field.

Every reader of JSON, TOML or another format goes through these functions:

    read_bytes, read_json, read_toml   bounded reads of regular files; a FIFO or a device never hangs them
    parse_json, parse_toml             plain data within the limits below
    fits                               its fields, checked against a pydantic model
    refusing                           whatever a parser of somebody else's raises, as one error
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from helix_core.errors import HelixError

JSON_BYTES, TOML_BYTES = 64 << 20, 256 << 10
"""Most bytes of a file of text; weights, shards and tokenizers have their own readers."""
DEPTH = 50
"""Most tables and lists within each other: parsers, validators and printers recurse."""
BITS = 128
"""Most bits of a whole number: those of a random generator's state."""
DOTS = 32
"""Most parts of a dotted key of TOML: tomllib takes quadratic time over them, a minute for 40 kB."""

AGAIN = "copy or download it again"
_PART = r"""(?:(?<!\\)"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'|(?<![\w-])[\w-]++)"""
_DOTTED = rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{DOTS}}}"  # possessive: it takes linear time; compiled when it is needed
Error = type[HelixError]
Model = TypeVar("Model")


def read_bytes(path: Path, error: Error, *, limit: int | None = None) -> bytes:
    """A regular file's content. Raises `error` if it cannot be read, is no regular file, or has more than `limit`."""
    with refusing(path, error):
        size = regular(path, error)
        if limit is not None and size > limit:
            raise error(f"{path} has {size} bytes, which is too large: at most {limit} are read")
        return path.read_bytes()


def regular(path: Path, error: Error) -> int:
    """The size of a regular file. Raises `error` if it is missing or something else, such as a folder or a FIFO."""
    with refusing(path, error):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise error(f"cannot read {path}: it is {kind}, not a file")
        return status.st_size


def read_json(path: Path, error: Error, *, finite: bool = True) -> Any:
    """The JSON in a file. Raises `error`, also for what `parse_json` refuses."""
    return parse_json(read_bytes(path, error, limit=JSON_BYTES), path, error, finite=finite)


def read_toml(path: Path, error: Error) -> dict[str, Any]:
    """The TOML in a file. Raises `error`, also for what `parse_toml` refuses."""
    return parse_toml(read_text(path, error, limit=TOML_BYTES), path, error)


def read_text(path: Path, error: Error, *, limit: int | None = None) -> str:
    """The UTF-8 text of a file. Raises `error` if it cannot be read or is none."""
    data = read_bytes(path, error, limit=limit)
    with refusing(path, error, what="is not UTF-8 text"):
        return data.decode("utf-8-sig").replace("\r\n", "\n")  # some editors begin with a byte order mark


def parse_json(data: bytes | str, origin: object, error: Error, *, finite: bool = True) -> Any:
    """The value of a JSON text; `origin` names it in errors.

    Raises `error` for text that is no JSON, and for what JSON has not or readers disagree on: NaN and infinities (which
    Python writes; they pass if not `finite`), keys given twice, halves of characters, numbers of more than BITS bits,
    nesting of more than DEPTH.
    """
    with refusing(origin, error, what="is not valid JSON"):
        value = json.loads(
            data.decode("utf-8-sig") if isinstance(data, bytes) else data,
            parse_constant=_no_number if finite else float,
            parse_int=_integer,
            object_pairs_hook=_table,
        )
        _check(value, finite)
        return value


def parse_toml(text: str, origin: object, error: Error) -> dict[str, Any]:
    """The table of a TOML text, within the limits of `parse_json`; `origin` names it in errors. Raises `error`.

    TOML has infinities, and they are meant.
    """
    with refusing(origin, error, what="is not valid TOML"):
        if len(text) > TOML_BYTES:
            raise ValueError(f"{len(text)} characters are too many: at most {TOML_BYTES} are read")
        if (found := re.search(_DOTTED, text)) is not None:
            raise ValueError(f"line {text.count(chr(10), 0, found.start()) + 1} has a key of more than {DOTS} parts")
        table = tomllib.loads(text)
        _check(table, finite=False)
        return table


def fits(model: type[Model], value: Any, origin: object, error: Error, *, hint: str | None = AGAIN) -> Model:
    """`value` as an instance of a pydantic model. Raises `error` with the wrong fields, each by its path."""
    from pydantic import ValidationError

    try:
        made: Model = model.model_validate(value)  # type: ignore[attr-defined]
        return made
    except ValidationError as failure:
        found = failure.errors(include_url=False)
        shown = [f"{_place(e['loc'])}{_lower(e['msg'])}{_got(e)}" for e in found[:3]]
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise error(f"{origin} is damaged: {'; '.join(shown)}{more}", hint=hint) from None


@contextmanager
def refusing(origin: object, error: Error, *, what: str = "is damaged", hint: str | None = AGAIN) -> Iterator[None]:
    """Turn whatever is raised inside into `error`, which names `origin`; Helix's own errors pass.

    Put calls of somebody else's parsers inside and nothing else: their kinds of errors are many and undocumented.
    """
    try:
        yield
    except (HelixError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as failure:  # a panic of Rust is no Exception
        if not isinstance(failure, Exception) and type(failure).__name__ != "PanicException":
            raise
        _refuse(failure, origin, error, what, hint)


def _refuse(failure: BaseException, origin: object, error: Error, what: str, hint: str | None) -> NoReturn:
    if isinstance(failure, OSError) and failure.errno is not None:
        raise error(f"cannot read {origin}: {failure.strerror}") from failure
    if isinstance(failure, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(failure, MemoryError):
        reason = "it needs more memory than there is"
    elif isinstance(failure, KeyError):
        reason = f"it has no {failure.args[0]!r}" if failure.args else "a part is missing"
    else:
        reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
    raise error(f"{origin} {what}: {reason}", hint=hint) from failure


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _integer(text: str) -> int:
    if len(text) > 40:  # digits of BITS bits, and a sign
        raise ValueError(f"a number has {len(text)} digits, which is too many")
    return int(text)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return table


def _check(value: Any, finite: bool) -> None:
    """Raise ValueError for what is beyond the limits, whatever the parser let pass. Level by level: no recursion."""
    level = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                item.encode()  # a half of a character cannot be
            elif isinstance(item, float) and finite and not math.isfinite(item):
                raise ValueError(f"{item} is not a finite number")
            elif isinstance(item, int) and item.bit_length() > BITS:
                raise ValueError(f"a number has {item.bit_length()} bits, at most {BITS} are read")
            elif isinstance(item, Mapping):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {DEPTH} deep")


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in loc) + ": " if loc else ""


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _got(item: Mapping[str, Any]) -> str:
    from reprlib import repr as shortened

    return "" if item["type"] in ("missing", "extra_forbidden") else f" (got {shortened(item.get('input'))})"
