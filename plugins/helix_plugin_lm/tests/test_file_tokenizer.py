"""Tokenizers of the library `tokenizers`: texts and back, in pieces, and files that cannot be used."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_core.errors import TokenizerError
from helix_plugin_lm.tokenizers import FileTokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXT = ["the quick brown fox jumps over the lazy dog, über Straße, naïve café; 数学 😀 😁 🎉"] * 3


def byte_level(special=("<|endoftext|>",)):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def metaspace():
    """In the manner of sentencepiece: spaces are a mark, unknown characters are single bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    for piece in ("▁", *"abcdefghijklmnopqrstuvwxyz"):
        vocabulary[piece] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    parts = tokenizers.decoders
    tokenizer.decoder = parts.Sequence([parts.Metaspace(), parts.ByteFallback(), parts.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level().save(str(folder / "tokenizer.json"))
    return FileTokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def fallback(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fallback")
    metaspace().save(str(folder / "tokenizer.json"))
    return FileTokenizer(folder / "tokenizer.json")


texts = st.text(st.sampled_from("abc the über数学😀🎉\n"), max_size=120)


@settings(deadline=None)
@given(texts)
def test_texts_come_back_in_whole_characters(made, text):
    stream = made.stream()
    pieces = [stream.feed(int(token)) for token in made.encode(text.encode())]
    assert b"".join(pieces).decode() == text
    for piece in pieces:
        piece.decode()


@settings(deadline=None)
@given(st.text(st.sampled_from("abcüß😀 "), max_size=80).map(lambda t: " ".join(t.split())))
def test_bytes_of_unknown_characters_are_put_together(fallback, text):
    stream = fallback.stream()
    pieces = [stream.feed(int(token)) for token in fallback.encode(text.encode())]
    assert b"".join(pieces).decode() == text


@pytest.mark.parametrize("first", range(4))
def test_a_long_run_of_single_bytes_is_text_wherever_it_began(fallback, first):
    text = "a" + "ß" * first + "😀数ß" * 40
    stream = fallback.stream()
    for token in fallback.encode(text.encode()):
        text = text.removeprefix(stream.feed(int(token)).decode())
        assert len(stream.state()[0]) < 50
    assert text == ""


@settings(deadline=None)
@given(st.lists(st.integers(0, 299), max_size=120), st.integers(0, 120))
def test_any_tokens_give_text_and_a_stream_goes_on_from_its_state(made, tokens, cut):
    stream = made.stream()
    whole = b"".join(map(stream.feed, tokens))
    whole.decode()
    first = made.stream()
    begun = b"".join(map(first.feed, tokens[:cut]))
    ids, given_ = json.loads(json.dumps(first.state()))
    second = made.stream((ids, given_))
    assert begun + b"".join(map(second.feed, tokens[cut:])) == whole
    assert len(ids) < 200


def test_a_stream_of_broken_characters_stays_short(made):
    broken = made.encode("𝄞".encode())[0]  # its first byte or bytes: the vocabulary has no such character
    stream = made.stream()
    text = b"".join(stream.feed(int(broken)) for _ in range(500)).decode()
    assert len(stream.state()[0]) < 200
    assert set(text) == {"\ufffd"}
    assert 490 < len(text) <= 500
    assert stream.feed(int(made.encode(b"a")[0])).decode().endswith("a")


def test_the_tokens_around_a_text(made, fallback, tmp_path):
    (end,) = made.ends
    assert made.start == end
    assert list(made.prompt(b"")) == [end]
    assert list(made.prompt(b"the")) == list(made.encode(b"the"))
    separated = FileTokenizer(made.path, separated=True)
    assert list(separated.prompt(b"the")) == [end, *made.encode(b"the")]
    assert (fallback.start, fallback.ends) == (1, {2})
    assert list(fallback.prompt(b"ab")) == [1, *fallback.encode(b"ab")]
    assert list(fallback.prompt(b"")) == [1]
    made.copy_to(tmp_path)
    copied = FileTokenizer(tmp_path / "tokenizer.json")
    assert (copied.start, copied.ends, copied.fingerprint) == (made.start, made.ends, made.fingerprint)


def test_files_beside_it_name_the_ends(tmp_path):
    byte_level(("<|endoftext|>", "<|im_end|>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}, "bos_token": null}')
    found = FileTokenizer(tmp_path / "tokenizer.json")
    assert found.ends == {1}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1], "bos_token_id": 0}')
    found = FileTokenizer(tmp_path / "tokenizer.json")
    assert (found.ends, found.start) == ({0, 1}, 0)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(TokenizerError, match="not JSON"):
        FileTokenizer(tmp_path / "tokenizer.json")


def test_texts_that_cannot_be_encoded(made, tmp_path):
    with pytest.raises(TokenizerError, match="not UTF-8"):
        made.encode(b"\xff")
    byte_level(()).save(str(tmp_path / "tokenizer.json"))
    nothing = FileTokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="begins a text"):
        nothing.prompt(b"")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\x00"])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match="not a tokenizer"):
        FileTokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="cannot read"):
        FileTokenizer(tmp_path / "other.json")


def test_the_library_is_asked_for_by_name(made):
    code = f"""
import sys
sys.modules["tokenizers"] = None
from helix_plugin_lm.tokenizers import FileTokenizer
from helix_core.errors import ComponentUnavailable
try:
    FileTokenizer({str(made.path)!r})
except ComponentUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'helix-plugin-lm[tokenizers]'" in done.stdout
