"""Stop strings, however the text is cut into pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_core.errors import UsageError
from helix_plugin_lm.generation import Stopping
from helix_plugin_lm.generation.stopping import StopScanner
from helix_plugin_lm.tokenizers.bytes import unfinished


def by_definition(text, strings):
    """Up to the first stop string to be complete when the text comes byte by byte, the longest of those."""
    for end in range(len(text) + 1):
        if complete := [s for s in strings if text[:end].endswith(s)]:
            return text[: end - max(map(len, complete))], True
    return text, False


few = st.binary(max_size=30).map(lambda b: bytes(97 + x % 3 for x in b))


@settings(max_examples=400, deadline=None)
@given(few, st.lists(few.filter(bool).map(lambda s: s[:5]), max_size=3), st.data())
def test_the_text_up_to_the_first_stop_string(text, strings, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    scanner, out, stopped = StopScanner(tuple(strings)), b"", False
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece, stopped = scanner.feed(text[start:end])
        out += piece
        if stopped:
            break
    if not stopped:
        # Nothing is held back but what may begin a stop string.
        held = scanner.flush()
        assert not held or any(s.startswith(held) for s in strings)
        out += held
    assert (out, stopped) == by_definition(text, strings)


@given(st.text(max_size=20), st.integers(0, 3))
def test_the_unfinished_end_of_a_text(text, cut):
    data = text.encode()
    data = data[: len(data) - min(cut, len(data))]
    whole = data.decode("utf-8", "ignore").encode()
    assert data[: len(data) - unfinished(data)] == whole


@given(st.binary(max_size=8))
def test_what_is_no_text_is_not_held_for_ever(data):
    keep = unfinished(data)
    assert keep <= 3
    if keep:
        assert any(
            _decodes(data[-keep:] + bytes(more))
            for more in (
                [0x80],
                [0xA0],
                [0x90, 0x80],
                [0x80, 0x80],
                [0x90, 0x80, 0x80],
                [0x80, 0x80, 0x80],
                [0xA0, 0x80],
            )
        )


def _decodes(data):
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"strings": (b"a", b"")}, "empty"),
        ({"tokens": frozenset({-1})}, "stop token"),
    ],
)
def test_impossible_settings_are_refused(bad, match):
    with pytest.raises(UsageError, match=match):
        Stopping(**bad)
