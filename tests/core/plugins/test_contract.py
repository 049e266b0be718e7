"""What hooks return is checked before anything relies on it."""

import pytest


def layer(options=""):
    return f"[LayerDescriptor(name='l', target='a:b', summary='', {options})]"


def hook(body):
    return f"@hookimpl\ndef helix_layers():\n    return {body}\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (hook("7"), "helix_layers must return a list, not int"),
        (hook("['mamba']"), "helix_layers must return LayerDescriptor objects, not str"),
        (hook("[BackendDescriptor(name='b', target='a:b', summary='')]"), "not BackendDescriptor"),
        (hook(layer() + " * 2"), "helix_layers returns two components named 'l'"),
        (hook("[LayerDescriptor(name='Big', target='a:b', summary='')]"), "layer 'Big': a name is made of"),
        (hook("[LayerDescriptor(name='l', target='a.b', summary='')]"), "target must be 'module:attribute'"),
        (hook("[LayerDescriptor(name='l', target=None, summary='')]"), "target must be 'module:attribute'"),
        (hook(layer("config=dict")), "config must be 'module:attribute'"),
        (hook(layer("requires='torch'")), "requires must be a tuple of strings, not 'torch'"),
        (hook(layer("priority='high'")), "priority must be an integer"),
        (hook(layer("api='1.7'")), "is written for plugin API 1.7, this core has 1.0"),
        (hook("1 / 0"), "ZeroDivisionError"),
        (hook("sys.exit()"), "it called sys.exit(None)"),
        ("@hookimpl\ndef helix_event(occurrence): pass", "helix_event"),
        ("@hookimpl\ndef helix_layer(): return []", "there is no hook 'helix_layer'; did you mean 'helix_layers'?"),
        ("@hookimpl(specname='helix_kernel')\ndef mine(): return []", "there is no hook 'helix_kernel'"),
        ("def helix_layers(): return []", "helix_layers is not marked: write @helix_core.hookimpl above it"),
    ],
)
def test_a_plugin_that_breaks_the_contract_fails_whole_and_alone(site, status, source, reason):
    fine = "[BackendDescriptor(name='f', target='a:b', summary='')]"
    site.plugin("bad", f"@hookimpl\ndef helix_backends():\n    return {fine}\n{source}")
    site.layers("good", "name='g'")
    registry = site.registry()
    kind, found = status(registry)["bad"]
    assert kind == "failed"
    assert reason in found
    assert "\n" not in found
    assert [c.full_name for c in registry.components()] == ["good/g"]


def test_kinds_have_names_of_their_own(site):
    body = """
        @hookimpl
        def helix_layers():
            return (LayerDescriptor(name="same", target="a:b", summary=""),)

        @hookimpl
        def helix_generators():
            return [GeneratorDescriptor(name="same", target="a:b", summary="")]

        @hookimpl
        def helix_memories():
            return None
    """
    site.plugin("one", body)
    assert {c.kind: c.full_name for c in site.registry().components()} == {
        "layer": "one/same",
        "generator": "one/same",
    }


MARKED = "@hookimpl\ndef {}(*arguments):\n    return []\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (MARKED.format("helix_layer"), "there is no hook 'helix_layer'; did you mean 'helix_layers'?"),
        (MARKED.format("helix_backend"), "there is no hook 'helix_backend'; did you mean 'helix_backends'?"),
        (MARKED.format("layers"), "there is no hook 'layers'; did you mean 'helix_layers'?"),
        (MARKED.format("helix_memory"), "there is no hook 'helix_memory'; did you mean 'helix_memories'?"),
        (MARKED.format("helix_evnt"), "there is no hook 'helix_evnt'; did you mean 'helix_event'?"),
        (MARKED.format("register"), "there is no hook 'register'"),
        ("@hookimpl(specname='helix_kernel')\ndef mine(): pass", "'helix_kernel'; did you mean 'helix_kernels'?"),
        ("def helix_layers():\n    return []", "helix_layers is not marked: write @helix_core.hookimpl above it"),
        ("helix_layers = lambda: []", "helix_layers is not marked"),
        (
            "def helix_layer():\n    return []",
            "no hook 'helix_layer'; did you mean 'helix_layers'?, and it must be marked",
        ),
        ("async def helix_optimisers(): pass", "did you mean 'helix_optimizers'?"),
    ],
)
def test_a_function_that_was_meant_as_a_hook_is_not_passed_over(site, status, source, reason):
    site.plugin("bad", source)
    site.layers("good", "name='g'")
    kind, found = status(site.registry())["bad"]
    assert kind == "failed"
    assert reason in found
    assert status(site.registry())["good"] == ("ok", "")


@pytest.mark.parametrize(
    "source",
    [
        "def helix_version(): return 1",
        "import helix_core\nhelix_table = {}",
        "from other import helix_layers",
        "@hookimpl(optionalhook=True)\ndef helix_of_tomorrow(): pass",
        "@hookimpl(specname='helix_layers')\ndef mine(): return []",
    ],
)
def test_other_functions_of_a_plugin_are_its_own(site, status, source):
    site.plugin("fine", source, other="def helix_layers(): pass")
    assert status(site.registry())["fine"] == ("ok", "")


def test_a_hook_may_be_optional_or_have_another_name(site, status):
    site.plugin(
        "fine",
        """
        @hookimpl(optionalhook=True)
        def helix_of_a_later_core():
            return []

        @hookimpl(specname="helix_layers")
        def mine():
            return [LayerDescriptor(name="l", target="a:b", summary="")]
    """,
    )
    registry = site.registry()
    assert status(registry)["fine"][0] == "ok"
    assert [c.full_name for c in registry.components()] == ["fine/l"]
