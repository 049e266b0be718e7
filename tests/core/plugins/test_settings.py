"""The user's settings: files, environment, and where each value came from."""

import pytest

from helix_core import ConfigError
from helix_core.plugin_system.settings import load_settings


@pytest.fixture
def load(tmp_path):
    def load(local="", user="", named=None, **environ):
        home = tmp_path / "home"
        (home / "helix").mkdir(parents=True, exist_ok=True)
        (home / "helix" / "config.toml").write_text(user)
        (tmp_path / "helix.toml").write_text(local)
        environ["XDG_CONFIG_HOME"] = environ["APPDATA"] = str(home)
        if named is not None:
            (tmp_path / "named.toml").write_text(named)
            environ["HELIX_CONFIG"] = str(tmp_path / "named.toml")
        return load_settings(environ, tmp_path)

    return load


def test_nothing_set(load):
    settings = load()
    assert (settings.allow, settings.deny, settings.pins, settings.kernels) == ((), (), {}, {})
    assert settings.strict is False
    assert settings.origin("strict") == "default"


def test_a_file_and_where_its_values_came_from(load, tmp_path):
    settings = load(
        'strict = true\n[plugins]\nallow = ["cpu", "acme-*"]\ndeny = ["bad"]\n'
        '[pin]\nbackend = "cpu"\n[kernels]\nselective_scan = "core/reference"\n'
    )
    assert settings.strict is True
    assert (settings.allow, settings.deny) == (("cpu", "acme-*"), ("bad",))
    assert settings.pins == {"backend": "cpu"}
    assert settings.kernels == {"selective_scan": "core/reference"}
    for key in ("strict", "plugins.allow", "plugins.deny", "pin.backend", "kernels.selective_scan"):
        assert settings.origin(key) == str(tmp_path / "helix.toml")


def test_the_nearer_file_wins_and_the_rest_is_kept(load, tmp_path):
    settings = load('[pin]\nbackend = "cpu"\n', user='[pin]\nbackend = "cuda"\noptimizer = "lion"\n')
    assert settings.pins == {"backend": "cpu", "optimizer": "lion"}
    assert settings.origin("pin.optimizer").endswith("config.toml")


def test_helix_config_stands_in_for_the_local_file(load):
    assert load("strict = true", named='[pin]\nlayer = "s4d"\n').pins == {"layer": "s4d"}
    assert load("strict = true", named="").strict is False


def test_the_environment_wins(load):
    settings = load(
        '[plugins]\nallow = ["x"]\n[pin]\nbackend = "cpu"\n',
        HELIX_BACKEND="cuda",
        HELIX_LR_SCHEDULE="wsd",
        HELIX_PLUGINS_ALLOW="a, b,,",
        HELIX_PLUGINS_DENY="c",
        HELIX_KERNEL_SELECTIVE_SCAN="core/reference",
        HELIX_STRICT="1",
    )
    assert settings.pins == {"backend": "cuda", "lr_schedule": "wsd"}
    assert (settings.allow, settings.deny) == (("a", "b"), ("c",))
    assert settings.kernels == {"selective_scan": "core/reference"}
    assert settings.strict is True
    assert settings.origin("pin.backend") == "HELIX_BACKEND"
    assert settings.origin("plugins.allow") == "HELIX_PLUGINS_ALLOW"
    assert settings.origin("kernels.selective_scan") == "HELIX_KERNEL_SELECTIVE_SCAN"
    assert settings.origin("strict") == "HELIX_STRICT"


def test_an_empty_variable_takes_a_list_or_strictness_back(load):
    settings = load('strict = true\n[plugins]\nallow = ["x"]\n', HELIX_STRICT="0", HELIX_PLUGINS_ALLOW="")
    assert settings.strict is False
    assert settings.allow == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[plugin]", "unknown setting 'plugin'; did you mean 'plugins'"),
        ("[plugins]\nalow = []", "unknown setting 'plugins.alow'; did you mean 'allow'"),
        ('[pin]\nbackened = "cpu"', "unknown setting 'pin.backened'; did you mean 'backend'"),
        ('[kernels]\nselective_scn = "x"', "'kernels.selective_scn'; did you mean 'selective_scan'"),
        ("[pin]\nbackend = 3", "'pin.backend' must be a name"),
        ('[plugins]\ndeny = "all"', "'plugins.deny' must be a list of names"),
        ("plugins = 3", "'plugins' must be a table"),
        ('strict = "yes"', "'strict' must be true or false"),
        ("strict = ", "cannot read settings"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_the_file(load, tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        load(text)
    assert str(tmp_path / "helix.toml") in str(error.value)


def test_wrong_variables(load):
    with pytest.raises(ConfigError, match="HELIX_STRICT must be 1 or 0, not 'perhaps'"):
        load(HELIX_STRICT="perhaps")
    with pytest.raises(ConfigError, match=r"nowhere\.toml, which is not a file"):
        load_settings({"HELIX_CONFIG": "nowhere.toml"})
