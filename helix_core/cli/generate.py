"""`helix generate`: continue a prompt with a trained run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from helix_core.errors import UsageError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="Text to continue; '-' reads standard input.")
@click.option("--max-bytes", default=400, show_default=True, type=click.IntRange(min=0))
@click.option("--temperature", default=0.8, show_default=True, type=float, help="0 is greedy.")
@click.option("--top-k", type=int, help="Sample among the k likeliest bytes only.")
@click.option("--top-p", type=float, help="Sample from the likeliest bytes that hold this much probability.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option(
    "--weights",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="Format that weights are kept in while decoding: smaller is faster and less exact.",
)
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
def command(
    run: Path,
    prompt: str,
    max_bytes: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    weights: str,
    backend: str,
) -> None:
    """Stream bytes that continue a prompt, from the newest checkpoint of RUN (or from a checkpoint folder).

    The prompt and its continuation go to standard output as they are made.
    """
    from helix_core.generation import Sampling, generate
    from helix_core.inference import load_run

    sampling = Sampling(temperature, top_k, top_p)
    text = sys.stdin.buffer.read() if prompt == "-" else prompt.encode()
    loaded = load_run(run, backend=backend)
    if loaded.model.config.vocab_size != 256:
        raise UsageError(
            f"the model of this run has {loaded.model.config.vocab_size} tokens, which are no bytes of text",
            hint=f"`helix eval {run}` says how well it does its task",
        )
    out = sys.stdout.buffer
    out.write(text)
    out.flush()
    stream = generate(
        loaded.model,
        loaded.backend,
        loaded.F,
        loaded.params,
        text,
        max_bytes=max_bytes,
        sampling=sampling,
        seed=seed,
        weights=weights,
    )
    for byte in stream:
        out.write(bytes([byte]))
        out.flush()
    if sys.stdout.isatty():
        out.write(b"\n")
        out.flush()
