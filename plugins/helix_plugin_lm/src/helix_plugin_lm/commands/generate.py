"""`helix generate`: continue prompts with a trained run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helix_core.errors import GenerationError, UsageError
from helix_core.untrusted import parse_json

if TYPE_CHECKING:
    from helix_plugin_lm.generation import Sampling, Stopping
    from helix_plugin_lm.runs.load import LoadedRun
    from helix_plugin_lm.tokenizers import Tokenizer

MAX_TOKENS = 400


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to continue; '-' reads standard input.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Continue many prompts, one a line; or of JSON, texts or objects with 'prompt' and 'seed', in a .jsonl file.",
)
@click.option("--max-tokens", type=click.IntRange(min=0), help=f"At most so many tokens.  [default: {MAX_TOKENS}]")
@click.option("--max-bytes", type=click.IntRange(min=0), help="At most so many bytes of text.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End in front of this text; repeatable.")
@click.option("--stop-token", multiple=True, type=click.IntRange(min=0), help="End at this token too; repeatable.")
@click.option("--temperature", default=0.8, show_default=True, type=float, help="0 is greedy.")
@click.option("--top-k", type=int, help="Sample among the k likeliest tokens only.")
@click.option("--top-p", type=float, help="Sample from the likeliest tokens that hold this much probability.")
@click.option("--min-p", type=float, help="Sample from tokens at least this share as likely as the likeliest.")
@click.option("--repetition-penalty", default=1.0, show_default=True, type=float, help="Above 1 avoids tokens used.")
@click.option("--frequency-penalty", default=0.0, show_default=True, type=float, help="Per use of a token.")
@click.option("--presence-penalty", default=0.0, show_default=True, type=float, help="Once for a token used.")
@click.option("--num-beams", type=int, metavar="N", help="Beam search for the likeliest text instead of sampling.")
@click.option(
    "--length-penalty", default=1.0, show_default=True, type=float, help="Of beams: above 0 favours long ones."
)
@click.option("--best", type=int, metavar="N", help="Of beams: print the N best, with scores, as JSON lines.")
@click.option("--seed", type=click.IntRange(min=0), help="[default: 0]; of the first of many prompts, others count on.")
@click.option("--save-state", type=click.Path(path_type=Path), metavar="FILE", help="Write where the text stands.")
@click.option("--load-state", type=click.Path(path_type=Path), metavar="FILE", help="Go on from such a file.")
@click.option("--width", default=8, show_default=True, type=int, help="Prompts side by side.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line per text, as --prompts does.")
@click.option(
    "--weights",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="Format that weights are kept in while decoding: smaller is faster and less exact.",
)
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
@click.pass_context
def command(
    context: click.Context,
    run: Path,
    prompt: str | None,
    prompts: Path | None,
    max_tokens: int | None,
    max_bytes: int | None,
    stop: tuple[str, ...],
    stop_token: tuple[int, ...],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float,
    frequency_penalty: float,
    presence_penalty: float,
    num_beams: int | None,
    length_penalty: float,
    best: int | None,
    seed: int | None,
    save_state: Path | None,
    load_state: Path | None,
    width: int,
    as_json: bool,
    weights: str,
    backend: str,
) -> None:
    """Stream text that continues a prompt, from the newest checkpoint of RUN (or from a checkpoint folder).

    The prompt and its continuation go to standard output as they are made. A text ends at --max-tokens, --max-bytes, a
    --stop text or a token that ends texts in the model's tokenizer.
    """
    from helix_plugin_lm.generation import Sampling, Stopping
    from helix_plugin_lm.runs.load import load_run

    given = {name for name in context.params if context.get_parameter_source(name) is not _DEFAULT}
    _check_options(given)
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty)
    if save_state and not save_state.parent.is_dir():
        raise UsageError(f"cannot save a state in {save_state.parent}: there is no such folder")
    if max_tokens is None and max_bytes is None:
        max_tokens = MAX_TOKENS
    stopping = Stopping(max_tokens, max_bytes, tuple(s.encode() for s in stop), frozenset(stop_token))
    asked = _read_prompts(prompts, seed or 0) if prompts else []
    text = sys.stdin.buffer.read() if prompt == "-" else (prompt or "").encode()
    loaded = load_run(run, backend=backend)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise UsageError(
            f"the {loaded.model.config.vocab_size} tokens of this run's model are no text",
            hint=f"`helix eval {run}` says how well it does its task",
        )
    for token in stop_token:
        if token >= tokenizer.vocab_size:
            raise UsageError(f"stop token {token} is none of the model's {tokenizer.vocab_size} tokens")
    stopping = Stopping(max_tokens, max_bytes, stopping.strings, stopping.tokens | tokenizer.ends)
    if num_beams is not None:
        _beams(loaded, tokenizer, text, stopping, num_beams, length_penalty, best, weights, as_json)
    elif prompts:
        _batch(loaded, tokenizer, asked, sampling, stopping, weights, width)
    else:
        _stream(loaded, tokenizer, text, sampling, stopping, seed, weights, save_state, load_state, as_json)


_DEFAULT = click.core.ParameterSource.DEFAULT
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "seed"} | {
    f"{kind}_penalty" for kind in ("repetition", "frequency", "presence")
}
_NOT_TOGETHER = {
    "num_beams": {*_SAMPLING, "prompts", "save_state", "load_state", "max_bytes", "width"},
    "prompts": {"prompt", "save_state", "load_state"},
}
_NEEDS = {"length_penalty": "num_beams", "best": "num_beams", "width": "prompts"}


def _check_options(given: set[str]) -> None:
    for option, others in _NOT_TOGETHER.items():
        for other in sorted(others & given) if option in given else ():
            raise UsageError(f"{_flag(other)} means nothing with {_flag(option)}: give one of them")
    for option, needed in _NEEDS.items():
        if option in given and needed not in given:
            raise UsageError(f"{_flag(option)} goes with {_flag(needed)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _stream(
    loaded: LoadedRun,
    tokenizer: Tokenizer,
    prompt: bytes,
    sampling: Sampling,
    stopping: Stopping,
    seed: int | None,
    weights: str,
    save_state: Path | None,
    load_state: Path | None,
    as_json: bool,
) -> None:
    from helix_plugin_lm.generation import generate, read_state
    from helix_plugin_lm.generation.stopping import CONTEXT

    parts = loaded.model, loaded.backend, loaded.F, loaded.params
    resume = read_state(load_state, loaded.fingerprint, loaded.model, loaded.F, tokenizer) if load_state else None
    text = generate(
        *parts,
        prompt,
        sampling=sampling,
        stopping=stopping,
        tokenizer=tokenizer,
        seed=seed,
        weights=weights,
        resume=resume,
    )
    if as_json:
        whole = b"".join(text)
        _print_json(prompt=prompt, text=whole, tokens=text.tokens, finish=text.finish)
    else:
        _print_pieces(prompt, text)
    if text.finish == CONTEXT:
        raise GenerationError(f"stopped after {text.tokens:,} tokens: the model's state can take in no more")
    if save_state:
        text.save().write(save_state, loaded.fingerprint)


def _batch(
    loaded: LoadedRun,
    tokenizer: Tokenizer,
    asked: list[tuple[str, int]],
    sampling: Sampling,
    stopping: Stopping,
    weights: str,
    width: int,
) -> None:
    from helix_plugin_lm.generation import generate_batch

    texts = generate_batch(
        loaded.model,
        loaded.backend,
        loaded.F,
        loaded.params,
        [prompt.encode() for prompt, _ in asked],
        sampling=sampling,
        stopping=stopping,
        tokenizer=tokenizer,
        seeds=[seed for _, seed in asked],
        weights=weights,
        width=width,
    )
    for (prompt, seed), found in zip(asked, texts, strict=True):
        _print_json(prompt=prompt, text=found.text, tokens=len(found.tokens), finish=found.finish, seed=seed)


def _beams(
    loaded: LoadedRun,
    tokenizer: Tokenizer,
    prompt: bytes,
    stopping: Stopping,
    num_beams: int,
    length_penalty: float,
    best: int | None,
    weights: str,
    as_json: bool,
) -> None:
    from helix_plugin_lm.generation import beam_search

    if best is not None and not 1 <= best <= num_beams:
        raise UsageError(f"--best must be within 1..{num_beams}, the number of beams, not {best}")
    found = beam_search(
        loaded.model,
        loaded.backend,
        loaded.F,
        loaded.params,
        prompt,
        num_beams=num_beams,
        stopping=stopping,
        length_penalty=length_penalty,
        tokenizer=tokenizer,
        weights=weights,
    )
    if best is None and not as_json:
        _print_pieces(prompt, [beam.text for beam in found[:1]])
        return
    for beam in found[: best or 1]:
        _print_json(
            prompt=prompt,
            text=beam.text,
            tokens=len(beam.tokens),
            finish=beam.finish,
            score=beam.score,
            log_probability=beam.log_probability,
        )


def _print_pieces(prompt: bytes, pieces: Iterable[bytes]) -> None:
    out = sys.stdout.buffer
    out.write(prompt)
    out.flush()
    for piece in pieces:
        out.write(piece)
        out.flush()
    if sys.stdout.isatty():
        out.write(b"\n")
        out.flush()


def _print_json(**fields: Any) -> None:
    texts = {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in fields.items()}
    utf8 = sys.stdout.encoding.lower().startswith("utf")
    click.echo(json.dumps(texts, ensure_ascii=not utf8))


def _read_prompts(path: Path, seed: int) -> list[tuple[str, int]]:
    """Prompts and their seeds: the lines of a file, or the texts and objects of a .jsonl file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read prompts {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"prompts {path} are not UTF-8 text: {error}") from error
    if lines == [""]:
        raise UsageError(f"{path} has no prompts")
    if path.suffix != ".jsonl":
        return [(line, seed + i) for i, line in enumerate(lines)]
    found = []
    for i, line in enumerate(lines):
        item = parse_json(line, f"{path}:{i + 1}", UsageError)
        item = {"prompt": item} if isinstance(item, str) else item
        if not isinstance(item, dict) or not isinstance(item.get("prompt"), str):
            raise UsageError(f"{path}:{i + 1}: give a text, or an object with the text 'prompt'")
        own = item.get("seed", seed + i)
        if type(own) is not int or own < 0:
            raise UsageError(f"{path}:{i + 1}: seed must be an integer of at least 0, not {own!r}")
        if more := set(item) - {"prompt", "seed"}:
            raise UsageError(f"{path}:{i + 1}: unknown key {sorted(more)[0]!r}: there are 'prompt' and 'seed'")
        found.append((item["prompt"], own))
    return found
