"""The guard of files that strangers made: what it refuses, and that errors name the file, the field and the way on."""

import os
import time

import pytest
from pydantic import BaseModel, ConfigDict, Field

from helix_core.errors import CheckpointError, ConfigError, DataError
from helix_core.untrusted import (
    DEPTH,
    fits,
    parse_json,
    parse_toml,
    read_bytes,
    read_json,
    read_toml,
    refusing,
    regular,
)

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[Infinity]", "Infinity is no number"),
        ("[1e999]", "inf is not a finite number"),
        ("9" * 5000, "5000 digits"),
        ("-" + "9" * 40, "digits"),
        (str(2**128), "129 bits"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('"\\ud800"', "not valid JSON"),
        ("[" * DEEP, "nested too deeply"),
        ("[" * DEEP + "]" * DEEP, "nested too deeply"),
        ('{"a":' * (DEPTH + 1) + "1" + "}" * (DEPTH + 1), f"nested more than {DEPTH} deep"),
    ],
)
def test_what_is_no_json_or_too_much_of_it(text, said):
    with pytest.raises(DataError, match=r"^some file is not valid JSON") as caught:
        parse_json(text, "some file", DataError)
    assert said in str(caught.value)
    assert caught.value.hint


def test_json_that_is_read():
    assert parse_json('{"a": [1, -2.5, "é", null], "b": {}}', "f", DataError) == {"a": [1, -2.5, "é", None], "b": {}}
    assert parse_json(str(2**128 - 1), "f", DataError) == 2**128 - 1, "the state of a random generator"
    assert parse_json('{"a": Infinity}', "f", DataError, finite=False) == {"a": float("inf")}
    inside = "[" * (DEPTH - 1) + "]" * (DEPTH - 1)
    assert parse_json(inside, "f", DataError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("a = " + "[" * DEEP, "nested too deeply"),
        ("a = " + "{a = " * 50_000, "nested too deeply"),
        ("x = 1\n" + "a." * 30_000 + "a = 1", "line 2 has a key of more than"),
        ("[" + '"a b" . ' * 9_000 + "a]", "line 1 has a key of more than"),
        ("[" + '"a\\"b".' * 9_000 + "a]", "line 1 has a key of more than"),
        ("[" + "'a b'." * 9_000 + "a]", "line 1 has a key of more than"),
        ("a = '" + "x" * 300_000 + "'", "are too many"),
    ],
)
def test_what_is_no_toml_or_too_much_of_it(text, said):
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, "r.toml", ConfigError)
    assert said in str(caught.value)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "text", ["x" * 200_000, '"' * 200_000, "'" * 200_001, '"\\' * 100_000, "a = '" + "b. c " * 9999]
)
def test_looking_for_long_keys_takes_linear_time(text):
    started = time.perf_counter()
    with pytest.raises(ConfigError):
        parse_toml(text, "r.toml", ConfigError)
    assert time.perf_counter() - started < 5


def test_toml_that_is_read():
    text = 'a.b.c = inf\n"quoted key".x = "sentences. like. these."\n'
    assert parse_toml(text, "f", ConfigError)["a"] == {"b": {"c": float("inf")}}


def test_only_regular_files_of_some_size_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", DataError, limit=5) == b"12345"
    assert regular(tmp_path / "file", DataError) == 5
    with pytest.raises(DataError, match="5 bytes, which is too large"):
        read_bytes(tmp_path / "file", DataError, limit=4)
    for path, said in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "it is a folder"),
        (tmp_path / ("n" * 300), "too long"),
        (tmp_path / "\0", "null"),
    ):
        with pytest.raises(DataError, match=said):
            read_json(path, DataError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.timeout(20)
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "r.toml")
    with pytest.raises(ConfigError, match="a device or a pipe"):
        read_toml(tmp_path / "r.toml", ConfigError)
    with pytest.raises(ConfigError, match="a device or a pipe"):
        read_toml(tmp_path.joinpath("/dev/zero"), ConfigError)


class Inner(BaseModel):
    model_config = ConfigDict(strict=True)
    bytes: int = Field(ge=0)


class Outer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    files: dict[str, Inner]
    step: int


def test_wrong_fields_are_named():
    good = {"files": {"a": {"bytes": 1}}, "step": 3}
    assert fits(Outer, good, "m.json", CheckpointError).step == 3
    for wrong, said in (
        ({"step": "3"}, r"step: input should be a valid integer \(got '3'\)"),
        ({"step": 3.0}, "step: input should be a valid integer"),
        ({"step": True}, "step: "),
        ({"files": {"a": {"bytes": -1}}}, r"files\.a\.bytes: .*greater than or equal to 0"),
        ({"files": None}, "files: input should be a valid dictionary"),
        ({"more": 1}, "more: extra inputs are not permitted"),
    ):
        with pytest.raises(CheckpointError, match=rf"^m\.json is damaged: {said}"):
            fits(Outer, good | wrong, "m.json", CheckpointError)
    with pytest.raises(CheckpointError, match="and 2 more"):
        fits(Outer, {str(i): "x" * 10_000 for i in range(3)}, "m.json", CheckpointError)
    with pytest.raises(CheckpointError) as caught:
        fits(Outer, good | {"step": "9" * 100_000}, "m.json", CheckpointError)
    assert len(str(caught.value)) < 500


def test_a_parsers_own_errors():
    class PanicException(BaseException):  # as pyo3's is called
        pass

    for raised, said in (
        (ValueError("line one\nline two"), "f is damaged: line one"),
        (RecursionError(), "nested too deeply"),
        (MemoryError(), "more memory than there is"),
        (KeyError("a"), "it has no 'a'"),
        (FileNotFoundError(2, "No such file"), "cannot read f: No such file"),
        (PanicException("index out of bounds"), "index out of bounds"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ):
        with pytest.raises(DataError, match=said) as caught, refusing("f", DataError):
            raise raised
        assert caught.value.__cause__ is raised
    with pytest.raises(ConfigError, match="mine"), refusing("f", DataError):
        raise ConfigError("mine")
    with pytest.raises(KeyboardInterrupt), refusing("f", DataError):
        raise KeyboardInterrupt
