"""No generator can be asked for samples that no machine holds."""

import pytest

from helix_core.errors import ConfigError
from helix_core.plugin_system import components, create
from helix_core.plugin_system.creation import config_model

GENERATORS = {c.full_name: c for c in components("generator")}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_whole_number_has_a_bound(name):
    model = config_model(GENERATORS[name])
    fields = {} if model is None else model.model_json_schema()["properties"]
    kinds = {key: [field, *field.get("anyOf", [])] for key, field in fields.items()}
    numbers = {key: kind for key, found in kinds.items() for kind in found if kind.get("type") == "integer"}
    assert [key for key, kind in numbers.items() if not {"maximum", "exclusiveMaximum"} & set(kind)] == []


def test_a_number_beyond_it_is_refused_by_name():
    with pytest.raises(ConfigError, match="context: Input should be less than or equal to 16777216"):
        create("generator", "selective-copying", context=10**9)
