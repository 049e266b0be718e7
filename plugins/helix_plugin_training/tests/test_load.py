"""Recipes: overrides, line-level errors, round trips."""

from pathlib import Path

import pytest

from helix_core.errors import ConfigError
from helix_plugin_training.recipes import dump_recipe, load_recipe, parse_recipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
GOOD = """\
name = "r"

[model]
d_model = 8
n_layers = 2
mixer = { name = "mamba", d_state = 4 }

[training]
steps = 3
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_are_valid_and_named_after_their_files(path):
    assert load_recipe(path).name == path.stem


def test_overrides_reach_nested_keys_as_toml_values():
    recipe = parse_recipe(
        GOOD,
        "r.toml",
        ["training.steps=7", "model.mixer.d_state=2", "data.source=some/folder", "backend.name='cpu'"],
    )
    assert recipe.training.steps == 7
    assert recipe.model.mixer[0].options == {"d_state": 2}
    assert (recipe.data.source, recipe.backend.name) == ("some/folder", "cpu")


def test_a_written_recipe_reads_back_equal():
    recipe = parse_recipe(GOOD, "r.toml", ["training.clip=2.5", "model.mlp.name=s4d"])
    assert parse_recipe(dump_recipe(recipe), "again") == recipe


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        (("steps = 3", "stpes = 3"), 9, ["training.stpes", "did you mean", "steps"]),
        (("d_model = 8", "d_model = -8"), 4, ["model.d_model", "greater than 0"]),
        (("n_layers = 2", "n_layers = 'two'"), 5, ["model.n_layers", "integer"]),
        (("[training]", "[trainign]"), 8, ["trainign", "training"]),
        (("steps = 3", "duration = 'soon'"), 9, ["training.duration", "2m"]),
        (('mixer = { name = "mamba", d_state = 4 }', "mixer = []"), 6, ["at least one mixer"]),
    ],
)
def test_a_wrong_key_is_named_with_its_line_and_nearest_match(edit, line, words):
    with pytest.raises(ConfigError) as caught:
        parse_recipe(GOOD.replace(*edit), "r.toml")
    text = str(caught.value)
    assert f"r.toml:{line}:" in text
    for word in words:
        assert word in text


def test_every_wrong_key_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_recipe(GOOD.replace("d_model", "dmodel").replace("steps", "step"), "r.toml")
    assert "dmodel" in str(caught.value)
    assert "training.step" in str(caught.value)


def test_an_override_that_is_wrong_says_so():
    with pytest.raises(ConfigError, match="--set"):
        parse_recipe(GOOD, "r.toml", ["training.batchsize=4"])
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        parse_recipe(GOOD, "r.toml", ["training.steps"])
    with pytest.raises(ConfigError, match="not a table"):
        parse_recipe(GOOD, "r.toml", ["name.first=x"])


def test_neither_steps_nor_duration_is_an_error():
    with pytest.raises(ConfigError, match=r"training\.steps or training\.duration"):
        parse_recipe(GOOD.replace("steps = 3", ""), "r.toml")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5400)])
def test_durations(text, seconds):
    recipe = parse_recipe(GOOD.replace("steps = 3", f"duration = '{text}'"), "r.toml")
    assert recipe.training.duration == seconds


def test_unreadable_recipes(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("name = \n")
    with pytest.raises(ConfigError, match=r"not valid TOML.*line 1"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(tmp_path / "binary.toml")


def test_infinity_survives_the_recipe_file():
    from helix_plugin_training.recipes import Recipe, dump_recipe

    mixer = {"name": "mamba2", "time_step_limit": [0.0, float("inf")]}
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"d_model": 64, "n_layers": 1, "mixer": mixer}, "training": {"steps": 1}}
    )
    assert parse_recipe(dump_recipe(recipe), "x.toml") == recipe
