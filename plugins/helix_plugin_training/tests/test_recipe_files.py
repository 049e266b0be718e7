"""Recipe files as editors and other programs leave them, and where things stand in them."""

import time

import pytest

from helix_core.errors import ConfigError, DataError
from helix_plugin_training.recipes import load_recipe, parse_recipe
from helix_plugin_training.recipes.absolute import absolute
from helix_plugin_training.recipes.locate import line_of

GOOD = """\
name = "r"
[model]
d_model = 8
n_layers = 2
mixer = { name = "mamba" }
[training]
steps = 3
"""


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n")])
def test_byte_order_marks_and_other_ends_of_lines(tmp_path, text):
    (tmp_path / "r.toml").write_bytes(text.encode())
    assert load_recipe(tmp_path / "r.toml") == parse_recipe(GOOD, "r.toml")


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000, "'" * 3])
def test_what_the_parser_cannot_take_is_a_wrong_recipe(value):
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_recipe(f"{GOOD}x = {value}", "r.toml")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.source", "[]", "at least 1 item"),
        ("training.duration", "inf", "finite"),
        ("seed", str(2**64), "less than"),
        ("sample.prompt", "\udcff", "not UTF-8"),
    ],
)
def test_values_that_mean_nothing(key, value, words):
    with pytest.raises(ConfigError, match=words):
        parse_recipe(GOOD, "r.toml", [f"{key}={value}"])


def test_keys_are_found_where_they_are_and_not_in_strings_or_comments():
    text = '''\
name = "x#y" # c
"a b" = 3
note = """
[model]
d_model = 9
\\""" [ """
[model] # [x]
mixer = [
  { name = "q" },
  # d_model = 1
]
d_model = '[a]'
[ training . "sub" ]
x = [["a"],
["b"]]
y.z = 1
[[many]]
k = 1
'''
    expected = {
        ("a b",): 2,
        ("model",): 7,
        ("model", "mixer", 0, "name"): 8,
        ("model", "d_model"): 12,
        ("training", "sub", "x"): 14,
        ("training", "sub", "y", "z"): 16,
        ("many", 0, "k"): 18,
        ("other",): None,
    }
    assert {path: line_of(text, path) for path in expected} == expected


@pytest.mark.parametrize(
    "value",
    [
        '"""\n[' + " " * 100_000 + '"""',
        "'''" + "[ " * 50_000 + "'''",
        '"' + "\\\\" * 50_000 + '"',
        "1 #" + "[ " * 50_000,
    ],
    ids=["lines", "brackets", "escapes", "comment"],
)
def test_a_wrong_key_beside_a_long_text_is_found_at_once(value):
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"r\.toml:8: unknown key 'training\.note'"):
        parse_recipe(f"{GOOD}note = {value}\n", "r.toml")
    assert time.perf_counter() - began < 5


def test_a_recipe_means_the_same_files_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    given = ['data.source=["stdlib", "a/*.txt", "~/b"]', "data.tokenizer=t.json", "training.init=runs/x"]
    found = absolute(parse_recipe(GOOD, "r.toml", given))
    assert found.data.source == ("stdlib", f"{tmp_path}/a/*.txt", f"{tmp_path}/me/b")
    assert (found.data.tokenizer, found.training.init) == (f"{tmp_path}/t.json", f"{tmp_path}/runs/x")
    generated = absolute(parse_recipe(GOOD, "r.toml", ['data.generator={name="masked_spans", source="a"}']))
    assert generated.data.generator.options == {"source": f"{tmp_path}/a"}


def test_a_path_that_no_recipe_can_hold(tmp_path, monkeypatch):
    folder = tmp_path / "\udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="not UTF-8"):
        absolute(parse_recipe(GOOD, "r.toml", ["data.source=a"]))
