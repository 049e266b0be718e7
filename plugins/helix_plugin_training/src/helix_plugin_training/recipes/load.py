"""Read a recipe from TOML, apply `a.b=c` overrides, validate with line-level errors, write it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from helix_core.cli.overrides import apply_override
from helix_core.errors import ConfigError
from helix_core.suggest import did_you_mean
from helix_core.untrusted import TOML_BYTES, parse_toml, read_text
from helix_plugin_training.recipes.config import Recipe
from helix_plugin_training.recipes.locate import line_of

SHOWN = 10
"""Most wrong keys that an error lists."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `a.b=c` overrides applied.

    Raises ConfigError if the file is missing or not TOML, or if a key or value is wrong; the message gives each
    wrong key with its line and nearest match.
    """
    path = Path(path)
    return parse_recipe(read_text(path, ConfigError, limit=TOML_BYTES), str(path), overrides)


def parse_recipe(text: str, origin: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a TOML text; `origin` names it in errors."""
    data = parse_toml(text, origin, ConfigError)
    overridden = {apply_override(data, item): "--set" for item in overrides}
    return recipe_of(data, origin, text=text, overridden=overridden)


def recipe_of(
    data: Mapping[str, Any], origin: str, *, text: str = "", overridden: Mapping[str, str] | None = None
) -> Recipe:
    """The recipe of tables as TOML has them. Raises ConfigError that names each wrong key.

    text        the TOML that they were read from, for the lines of wrong keys
    overridden  for dotted keys that were set otherwise, by what
    """
    overridden = overridden or {}
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = []
        found = error.errors()
        for item in found[:SHOWN]:
            place = _clean(item["loc"])
            dotted = ".".join(map(str, place))
            line = None if dotted in overridden else line_of(text, place)
            where = f"{origin}:{line}" if line else overridden.get(dotted, origin)
            problems.append(f"  {where}: {_explain(item, place, dotted)}")
        if len(found) > SHOWN:
            problems.append(f"  and {len(found) - SHOWN} more")
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
