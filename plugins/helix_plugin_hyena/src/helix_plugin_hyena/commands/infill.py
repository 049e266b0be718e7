"""`helix infill`: fill in what is missing in a text."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import click

PASSES = 64


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--text", required=True, help="Text with blanks <|n|> of n bytes each; '-' reads standard input.")
@click.option(
    "--passes", type=click.IntRange(min=1), help=f"Times the model reads it.  [default: a byte each, at most {PASSES}]"
)
@click.option("--temperature", default=0.0, show_default=True, type=float, help="0 takes the likeliest bytes.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of what is drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print text and what was filled in as JSON.")
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
def command(
    run: Path, text: str, passes: int | None, temperature: float, seed: int, as_json: bool, backend: str
) -> None:
    """Fill in the blanks of a text, from the newest checkpoint of RUN (or from a checkpoint folder).

    RUN is of a model that learned from the generator `masked-spans`. The model reads the whole text several times, what
    stands behind the blanks too, and each time the bytes it is surest of are filled in. JSON: text and filled, a list,
    in which bytes that are no UTF-8 are U+FFFD.
    """
    from helix_core.errors import UsageError
    from helix_plugin_hyena.infill import BLANK, fill, parse
    from helix_plugin_hyena.masked_spans import MASK
    from helix_plugin_lm.runs.load import load_run

    if not (temperature >= 0 and math.isfinite(temperature)):
        raise UsageError(f"temperature must be a number, at least 0; it is {temperature}")
    given = sys.stdin.buffer.read() if text == "-" else text.encode()
    tokens = parse(given)
    loaded = load_run(run, backend=backend)
    generator = loaded.spec.data.generator
    if generator is None or generator.name.rpartition("/")[2] != "masked-spans":
        raise UsageError(
            f"the model of {run} did not learn to fill in spans",
            hint='train one on data.generator = "masked-spans", as recipes/byte-infill-hyena.toml does',
        )
    masked = tokens == MASK
    filled = fill(
        loaded.model,
        loaded.backend,
        loaded.F,
        loaded.params,
        tokens,
        passes=passes or min(PASSES, int(masked.sum())),
        temperature=temperature,
        seed=seed,
    )
    data = filled.astype("uint8").tobytes()
    if not as_json:
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()
        return
    parts, at = [], 0
    for blank in BLANK.finditer(given):
        begin = blank.start() + at
        parts.append(data[begin : begin + int(blank[1])].decode(errors="replace"))
        at += int(blank[1]) - len(blank[0])
    click.echo(json.dumps({"text": data.decode(errors="replace"), "filled": parts}, ensure_ascii=False))
