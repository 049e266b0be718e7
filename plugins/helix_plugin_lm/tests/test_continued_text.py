"""What continues a text is decoded as its continuation: prompt and pieces are what the library makes of all tokens."""

import itertools
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_plugin_lm.tokenizers import BYTES, FileTokenizer

tokenizers = pytest.importorskip("tokenizers")
D = tokenizers.decoders

PIECES = ["▁", "▁▁", "▁the", "▁world", "he", "llo", "##ing", "##s", ".", " .", "n't", " not", " do", "e</w>", "a</w>"]
PIECES += ["Ġ", "Ġa", "a", "Ã", "Ģ", "aÃ", "ðŁ", "Ĵ", "Ċ", "�", "ß", "|", "<pad>", "</", "w>", "x", "  ", "'", " '"]
SPECIAL = ["<s>", "</s>"]
FALLBACK = [f"<0x{b:02X}>" for b in range(256)]
LLAMA = [D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]
DECODERS = {
    "none": None,
    "ByteLevel": D.ByteLevel(),
    "Metaspace": D.Metaspace(),
    "Metaspace-first": D.Metaspace(prepend_scheme="first"),
    "Metaspace-never": D.Metaspace(prepend_scheme="never"),
    "WordPiece": D.WordPiece(),
    "WordPiece-plain": D.WordPiece(cleanup=False),
    "BPE": D.BPEDecoder(),
    "CTC": D.CTC(),
    "Fuse": D.Fuse(),
    "Strip": D.Strip("e", 1, 1),
    "Replace": D.Replace("a", "bb"),
    "Replace-regex": D.Replace(tokenizers.Regex("l+"), " "),
    "Llama": D.Sequence([*LLAMA, D.Strip(" ", 1, 0)]),
    "Gemma": D.Sequence(LLAMA),
    "fallback": D.ByteFallback(),
    "Metaspace-fallback": D.Sequence([D.Metaspace(), D.ByteFallback(), D.Fuse()]),
    "WordPiece-CTC": D.Sequence([D.CTC(), D.WordPiece()]),
    "Strip-level": D.Sequence([D.ByteLevel(), D.Strip(" ", 2, 0)]),
    # Later tokens change the text of earlier ones:
    "Fuse-Replace": D.Sequence([D.Fuse(), D.Replace("hello", "bye")]),
    "Fuse-regex": D.Sequence([D.Fuse(), D.Replace(tokenizers.Regex("▁+"), " ")]),
    "Fuse-WordPiece": D.Sequence([D.Fuse(), D.WordPiece()]),
    "Fuse-BPE": D.Sequence([D.Fuse(), D.BPEDecoder()]),
    "Fuse-Strip": D.Sequence([D.Replace("▁", " "), D.Fuse(), D.Strip("s", 1, 1)]),
    "BPE-Replace": D.Sequence([D.BPEDecoder(), D.Replace("e ", "x")]),
    "level-Replace": D.Sequence([D.ByteLevel(), D.Replace("a ", "b")]),
    "CTC-fallback": D.Sequence([D.CTC(), D.ByteFallback(), D.Fuse()]),
    "WordPiece-fallback": D.Sequence([D.WordPiece(), D.ByteFallback()]),
    "fallback-Strip": D.Sequence([D.ByteFallback(), D.Strip(" ", 1, 0), D.Fuse()]),
    "Fuse-level": D.Sequence([D.Fuse(), D.ByteLevel()]),
}
NAMES = [*PIECES, *SPECIAL, *FALLBACK]
NUMBER = {name: i for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """FileTokenizers by the name of their decoder, made once."""
    folder, found = tmp_path_factory.mktemp("decoders"), {}

    def make(name):
        if name not in found:
            tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(NUMBER, unk_token="x"))
            if DECODERS[name] is not None:
                tokenizer.decoder = DECODERS[name]
            tokenizer.add_special_tokens(SPECIAL)
            (folder / name).mkdir()
            tokenizer.save(str(folder / name / "tokenizer.json"))
            found[name] = FileTokenizer(folder / name / "tokenizer.json"), partial(decoded, tokenizer)
        return found[name]

    return make


# Single bytes come as whole characters: elsewhere the library takes back characters that were given.
characters = st.sampled_from("ß数😀 ▁a").map(lambda c: [f"<0x{b:02X}>" for b in c.encode()])
token = st.sampled_from([*PIECES, *SPECIAL, *SPECIAL]).map(lambda name: [name])
texts = st.lists(token | characters, max_size=90).map(lambda parts: [NUMBER[n] for part in parts for n in part])


def decoded(library, ids):
    """What the library makes of tokens. Some of its decoders panic where no token is part of the text."""
    return library.decode(ids) if any(NAMES[i] not in SPECIAL for i in ids) else ""


def continued(tokenizer, prompt, tokens):
    stream = tokenizer.stream()
    stream.read(prompt)
    pieces = [stream.feed(t) for t in tokens]
    return (b"".join(pieces) + stream.end()).decode(), stream


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None, max_examples=25)
@given(prompt=texts, tokens=texts, cut=st.integers(0, 90))
def test_a_prompt_and_what_follows_are_the_text_of_all(made, name, prompt, tokens, cut):
    tokenizer, decode = made(name)
    plain = NUMBER["he"]  # the text ends in a whole character
    for before, after in ((prompt, [*tokens, plain]), ([], [*prompt, *tokens, plain])):
        if decode([*before, *after]).startswith(given_ := decode(before)):
            assert given_ + continued(tokenizer, before, after)[0] == decode([*before, *after])
    # A stream may be left and taken up anywhere.
    begun = tokenizer.stream()
    first = b"".join(map(begun.feed, tokens[:cut]))
    assert first + tokenizer.decode([*tokens[cut:], plain], begun.state()) == tokenizer.decode([*tokens, plain])


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None, max_examples=25)
@given(tokens=st.lists(st.integers(0, len(PIECES) + 1), max_size=60))
def test_the_end_of_a_text_lacks_an_unfinished_character_and_nothing_else(made, name, tokens):
    tokenizer, decode = made(name)
    missing = decode(tokens).removeprefix(continued(tokenizer, [], tokens)[0])
    last = next((NAMES[t] for t in reversed(tokens) if NAMES[t] not in SPECIAL), "")
    assert missing in ("", "�")
    assert missing == "" or last[-1] in "ÃŁĴß"


@pytest.mark.parametrize("name", DECODERS)
def test_special_tokens_alone_are_no_text(made, name):
    tokenizer, _ = made(name)
    ids = [NUMBER[s] for s in SPECIAL]
    assert tokenizer.decode(ids) == b""
    assert continued(tokenizer, [], ids)[0] == continued(tokenizer, ids, ids)[0] == ""


@pytest.mark.parametrize("name", ["Metaspace", "WordPiece", "Llama", "BPE", "none", "Gemma"])
def test_a_first_blank_is_there(made, name):
    tokenizer, _ = made(name)
    both = {"WordPiece": ("he", "llo"), "BPE": ("e</w>", "llo"), "none": ("he", "llo")}.get(name, ("▁the", "▁world"))
    first, second = (NUMBER[n] for n in both)
    assert continued(tokenizer, [first], [second])[0].startswith(" ")
    # Special tokens are no part of a text, however many there are.
    assert continued(tokenizer, [NUMBER["<s>"], first, *[NUMBER["</s>"]] * 50], [second])[0].startswith(" ")


def test_whole_characters_in_front_of_an_unfinished_one_are_given(made):
    tokenizer, _ = made("ByteLevel")
    assert continued(tokenizer, [], [NUMBER["aÃ"]])[0] == "a"
    assert continued(tokenizer, [], [NUMBER["aÃ"], NUMBER["Ģ"]])[0] == "aÀ"
    assert continued(tokenizer, [], [NUMBER["Ģ"]] * 9)[0] == "�" * 9  # no beginning of a character


@settings(deadline=None)
@given(before=st.text(st.sampled_from("aß数"), max_size=5), run=st.lists(st.integers(0, 255), max_size=80))
def test_bytes_that_are_no_text_cost_no_text_around_them(made, before, run):
    tokenizer, decode = made("Gemma")
    prompt = [NUMBER["▁the"], *(NUMBER[f"<0x{b:02X}>"] for b in before.encode())]
    tokens = [*(NUMBER[f"<0x{b:02X}>"] for b in run), NUMBER["▁world"]]
    text, stream = continued(tokenizer, prompt, tokens)
    assert text.endswith(" world")
    assert len(stream.state()[0]) < 50
    # The library takes back whole characters in front of what is none, which a stream cannot.
    whole = next(n for n in range(len(run), -1, -1) if "�" not in bytes(run[:n]).decode(errors="replace"))
    assert text == bytes(run[:whole]).decode() + "�" * (len(run) - whole) + " world"
    if whole in (0, len(run)) and not before:
        assert text == decode([*prompt, *tokens]).removeprefix(" the")


@pytest.mark.parametrize("name", [n for n in DECODERS if "-" not in n])
def test_a_stream_stays_short(made, name):
    stream = made(name)[0].stream()
    for token, _ in zip(itertools.cycle([NUMBER["he"], NUMBER["▁"], NUMBER["</s>"], NUMBER["##s"]]), range(3000)):
        stream.feed(token)
        assert len(stream.state()[0]) < 50


@given(st.text(st.sampled_from("aß数😀"), max_size=8).map(str.encode), st.integers(0, 32), st.integers(0, 32))
def test_bytes_go_on_inside_a_character(text, cut, end):
    cut, text = min(cut, len(text)), text[: max(cut, end)]
    stream = BYTES.stream()
    stream.read(BYTES.encode(text[:cut]))
    found = text[:cut] + b"".join(map(stream.feed, text[cut:]))
    whole = text.decode("utf-8", "ignore").encode()
    assert found == (whole if len(whole) > cut else text[:cut])
