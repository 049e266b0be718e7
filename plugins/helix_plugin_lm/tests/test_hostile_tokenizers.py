"""Damaged and hostile files: whatever the library does with them, panics too, is an error of Helix."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_file_tokenizer import byte_level, metaspace

from helix_core.errors import HelixError, TokenizerError
from helix_plugin_lm.tokenizers import FileTokenizer

pytest.importorskip("tokenizers")
BASES = [json.loads(tokenizer.to_str()) for tokenizer in (byte_level(), metaspace())]
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}]}
STRIP = {"type": "Strip", "content": "a", "start": 0, "stop": 3}
VALUES = [None, True, 0, -1, 2**31, 2**32, 2**63, 0.5, "", "a", "▁", "(", "(a+)+$", [], [1], {}, {"a": 1}, "x" * 5000]


def write(folder, base, **changes):
    file = folder / "tokenizer.json"
    model = {"model": base["model"] | changes.pop("model", {})}
    file.write_text(json.dumps(base | model | changes))
    return file


def use(file):
    """Do with a file all that Helix does."""
    tokenizer = FileTokenizer(file)
    for text in (b"", b"a b", "the über 😀 <s>".encode()):
        stream = tokenizer.stream()
        stream.read(tokenizer.prompt(text))
        for token in range(0, min(tokenizer.vocab_size, 300), 7):
            stream.feed(token)
        stream.end()
        tokenizer.decode(tokenizer.encode(text).tolist())


def test_a_panic_while_a_text_is_encoded(tmp_path):
    processor = TEMPLATE | {"pair": [], "special_tokens": {}}
    tokenizer = FileTokenizer(write(tmp_path, BASES[0], post_processor=processor))
    with pytest.raises(TokenizerError, match="cannot encode the text"):
        tokenizer.prompt(b"a")


def test_a_panic_while_tokens_are_decoded(tmp_path):
    tokenizer = FileTokenizer(write(tmp_path, BASES[0], decoder=STRIP))
    with pytest.raises(TokenizerError, match="cannot decode tokens"):
        tokenizer.decode(tokenizer.encode(b"a a").tolist())


@pytest.mark.parametrize("prefix", ["a", "##", "▁▁▁", "x" * 1000])
def test_merges_without_their_prefix_end_no_process(prefix, tmp_path):
    file = write(tmp_path, BASES[0], model={"continuing_subword_prefix": prefix})
    with pytest.raises(TokenizerError, match="lack its continuing_subword_prefix"):
        FileTokenizer(file)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00", '{"eos_token_id": NaN'])
def test_files_beside_it_that_are_no_json(name, text, tmp_path):
    file = write(tmp_path, BASES[0])
    (tmp_path / name).write_text(text)
    with pytest.raises(TokenizerError, match=name):
        FileTokenizer(file)


@pytest.mark.parametrize("value", [*VALUES, [None, "a", [1], 2**70, 1.5], {"content": 1}, float("nan")])
def test_files_beside_it_that_say_nonsense(value, tmp_path):
    file = write(tmp_path, BASES[0])
    said = {f"{kind}_{what}": value for kind in ("bos", "eos") for what in ("token", "token_id")}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    use(file)


def places(value, path=()):
    """Where a file may be changed: not at every token."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[-5:] if len(value if isinstance(value, list | dict) else ()) > 20 else items:
        yield from places(inner, (*path, key))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.sampled_from(BASES), draw=st.data())
def test_files_with_anything_anywhere(base, draw, tmp_path):
    damaged = copy.deepcopy(base)
    *above, key = draw.draw(st.sampled_from(list(places(base))[1:]))
    inner = damaged
    for step in above:
        inner = inner[step]
    if draw.draw(st.booleans()):
        inner[key] = draw.draw(st.sampled_from(VALUES))
    else:
        del inner[key]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(damaged))
    with suppress(HelixError):
        use(file)
