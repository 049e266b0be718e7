"""Training a recipe in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from helix.documents import as_bytes
from helix.run import Run, load
from helix_core.errors import ConfigError, DataError, UsageError


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    texts: Iterable[str | bytes] | None = None,
    **overrides: Any,
) -> Run:
    """Carry out a recipe, a TOML file or its content as a dict, and return the trained run.

    Keywords override the recipe: by section, `training={"steps": 100}`, or from a dict by dotted key,
    `**{"training.steps": 100}`. `texts` are learnt from instead of files: each is a document, and some are held out;
    they are kept beside the runs, so that the run can be resumed. Raises ConfigError for what the recipe does not know,
    and what `helix_plugin_training.train` raises.

    >>> import tempfile
    >>> import helix
    >>> recipe = {"name": "tiny", "model": {"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 2}}}
    >>> short = {"steps": 2, "batch_size": 2, "seq_len": 16}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = helix.train(recipe, training=short, texts=["to be or not to be"] * 20, runs=folder)
    >>> run.path.name.startswith("tiny-")
    True
    """
    from helix_core.untrusted import TOML_BYTES, parse_toml, read_text
    from helix_plugin_training import train as carry_out
    from helix_plugin_training.recipes import recipe_of

    if isinstance(recipe, Mapping):
        origin, text, data = "the recipe", "", dict(recipe)
    else:
        origin = str(recipe)
        text = read_text(Path(recipe), ConfigError, limit=TOML_BYTES)
        data = parse_toml(text, origin, ConfigError)
    if texts is not None:
        if "data.source" in overrides or "source" in (overrides.get("data") or {}):
            raise UsageError("texts and data.source are two sources of data: give one of them")
        overrides["data.source"] = str(_kept(texts, Path(runs)))
    overridden: dict[str, str] = {}
    for key, value in overrides.items():
        _override(data, key, value, overridden)
    return load(carry_out(recipe_of(data, origin, text=text, overridden=overridden), runs=runs))


def _override(data: dict[str, Any], key: str, value: Any, overridden: dict[str, str]) -> None:
    """Set a dotted key, or several below it; `overridden` notes which keyword set what."""
    if isinstance(value, Mapping) and isinstance(_at(data, key), dict):
        for name, inner in value.items():
            _override(data, f"{key}.{name}", inner, overridden)
        return
    *path, last = key.split(".")
    target = data
    for part in path:
        # A copy, since the recipe may be a dict of the caller's.
        target[part] = dict(target.get(part, {})) if isinstance(target.get(part, {}), Mapping) else target[part]
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"{key}: {part!r} is a value, not a section")
    target[last] = value
    overridden[key] = f"keyword {key.partition('.')[0]}"


def _at(data: Mapping[str, Any], key: str) -> Any:
    """The table at a dotted key, an empty one where there is none yet; None for a value or a component's name."""
    found: Any = data
    for part in key.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part, {})
    return dict(found) if isinstance(found, Mapping) else None


def _kept(texts: Iterable[str | bytes], runs: Path) -> Path:
    """A folder with the texts, a file each; the same texts are kept once."""
    documents = [as_bytes(text) for text in texts]
    if not any(documents):
        raise DataError("texts has no text to learn from")
    digest = hashlib.blake2b(digest_size=8)
    for document in documents:
        digest.update(len(document).to_bytes(8, "little") + document)
    folder = runs / f"texts-{digest.hexdigest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, document in enumerate(documents):
            (folder / f"{number:08d}.txt").write_bytes(document)
    except OSError as error:
        raise DataError(f"cannot keep the texts in {folder}: {error.strerror or error}") from error
    return folder
