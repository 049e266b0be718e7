"""A prompt and its continuation are the text of all their tokens, in streams, batches and beams, and when resumed."""

import pytest
from test_generate import build

from helix_plugin_lm.generation import Sampling, Stopping, beam_search, generate, generate_batch
from helix_plugin_lm.tokenizers import FileTokenizer

tokenizers = pytest.importorskip("tokenizers")
D = tokenizers.decoders
WORDS = [*(f"▁w{i}" for i in range(20)), *"abc", "▁", "<s>", "</s>"]
DECODERS = {
    "metaspace": D.Metaspace(),
    "llama": D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]),
    "held": D.Sequence([D.Replace("▁", " "), D.Fuse(), D.Replace("ab", "X"), D.Strip(" ", 1, 0)]),
}


@pytest.fixture(params=DECODERS)
def tokenizer(request, tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="a"))
    made.pre_tokenizer, made.decoder = tokenizers.pre_tokenizers.Metaspace(), DECODERS[request.param]
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    return FileTokenizer(tmp_path / "tokenizer.json")


@pytest.fixture
def parts(monkeypatch):
    return build(monkeypatch, vocab_size=len(WORDS))


PROMPT = b"w1 w2 w3"
LIMIT = Stopping(max_tokens=40)


def text_of(tokenizer, tokens):
    library = tokenizers.Tokenizer.from_file(str(tokenizer.path))
    return library.decode([*tokenizer.prompt(PROMPT).tolist(), *tokens]).encode()


def test_streams_and_batches(parts, tokenizer):
    for seed, found in enumerate(generate_batch(*parts, [PROMPT] * 5, stopping=LIMIT, tokenizer=tokenizer)):
        assert found.finish == "length"
        assert PROMPT + found.text == text_of(tokenizer, found.tokens)
        text = b"".join(generate(*parts, PROMPT, stopping=LIMIT, tokenizer=tokenizer, seed=seed))
        assert text == found.text


def test_beams(parts, tokenizer):
    for beam in beam_search(*parts, PROMPT, num_beams=4, stopping=Stopping(8), tokenizer=tokenizer):
        assert PROMPT + beam.text == text_of(tokenizer, beam.tokens)


def test_a_stop_text_that_begins_with_a_blank(parts, tokenizer):
    (free,) = generate_batch(*parts, [PROMPT], stopping=LIMIT, tokenizer=tokenizer)
    stop = b" " + next(word for word in free.text.split(b" ") if word.startswith(b"w"))
    before = free.text[: free.text.index(stop)]
    (found,) = generate_batch(*parts, [PROMPT], stopping=Stopping(40, strings=(stop,)), tokenizer=tokenizer)
    assert (found.text, found.finish) == (before, "stop string")
    beams = beam_search(*parts, PROMPT, num_beams=3, stopping=Stopping(8, strings=(b" w",)), tokenizer=tokenizer)
    assert any(beam.finish == "stop string" for beam in beams)
    assert all(b" w" not in beam.text for beam in beams)
    # The first token of a continuation may be it.
    greedy = {"tokenizer": tokenizer, "sampling": Sampling(0)}
    first = b"".join(generate(*parts, PROMPT, stopping=Stopping(1), **greedy))
    ended = generate(*parts, PROMPT, stopping=Stopping(9, strings=(first,)), **greedy)
    assert first.startswith(b" w")
    assert (b"".join(ended), ended.finish) == (b"", "stop string")
    assert ended.tokens in (1, 9)  # at once, but where nothing is certain before the end


@pytest.mark.parametrize("tokens", [1, 7, 35])
def test_a_text_that_is_left_and_taken_up(parts, tokenizer, tokens):
    begun = generate(*parts, PROMPT, stopping=Stopping(tokens), tokenizer=tokenizer, seed=2)
    text = b"".join(begun)
    text += b"".join(generate(*parts, stopping=Stopping(40 - tokens), tokenizer=tokenizer, resume=begun.save()))
    (whole,) = generate_batch(*parts, [PROMPT], stopping=LIMIT, tokenizer=tokenizer, seeds=2)
    # What was held back is given where a text is left, and is not rewritten any more.
    assert text.replace(b"ab", b"X") == whole.text.replace(b"ab", b"X")


def test_a_resumed_text_goes_on_after_its_new_prompt(parts, tokenizer):
    begun = generate(*parts, PROMPT, stopping=Stopping(5), tokenizer=tokenizer, seed=2)
    list(begun)
    state = begun.save()
    texts = []
    for seed in range(10):
        text = generate(*parts, b"w4", stopping=Stopping(9), tokenizer=tokenizer, seed=seed, resume=state)
        texts.append(b"".join(text))
    assert any(text.startswith(b" w") for text in texts)
    assert not any(text.startswith(b"w") for text in texts)  # whatever comes first, a word has its blank
