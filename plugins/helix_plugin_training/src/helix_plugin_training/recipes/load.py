"""Read a recipe from TOML, apply `a.b=c` overrides, validate with line-level errors, write it back."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from helix_core.cli.overrides import apply_override
from helix_core.errors import ConfigError
from helix_core.suggest import did_you_mean
from helix_plugin_training.recipes.config import Recipe
from helix_plugin_training.recipes.locate import line_of


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `a.b=c` overrides applied.

    Raises ConfigError if the file is missing or not TOML, or if a key or value is wrong; the message gives each
    wrong key with its line and nearest match.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path} is not UTF-8 text: {error}") from error
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, origin: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a TOML text; `origin` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}") from error
    overridden = {apply_override(data, item) for item in overrides}
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            place = _clean(item["loc"])
            dotted = ".".join(map(str, place))
            line = None if dotted in overridden else line_of(text, place)
            where = f"{origin}:{line}" if line else ("--set" if dotted in overridden else origin)
            problems.append(f"  {where}: {_explain(item, place, dotted)}")
        raise ConfigError("the recipe is not valid:\n" + "\n".join(dict.fromkeys(problems))) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, with every default written out."""
    import tomlkit

    data = recipe.model_dump(mode="json")
    for key in recipe.idle:
        section, _, name = key.partition(".")
        del (data[section] if name else data)[name or section]
    return tomlkit.dumps(_without_none(data))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _clean(loc: Sequence[str | int]) -> list[str | int]:
    """pydantic's location without the union-branch names that it inserts."""
    return [part for part in loc if not (isinstance(part, str) and (part == "int" or "[" in part))]


def _explain(item: Any, place: Sequence[str | int], dotted: str) -> str:
    if item["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}{did_you_mean(str(place[-1]), _fields_at(place[:-1]))}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"missing key {dotted!r}"
    got = item.get("input")
    shown = f" (got {got!r})" if not isinstance(got, dict) and len(repr(got)) < 60 else ""
    return f"{dotted}: {message}{shown}" if dotted else message


def _fields_at(place: Sequence[str | int]) -> list[str]:
    """The keys a section has."""
    model: Any = Recipe
    for part in place:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
