"""Telling observers what happened."""

import warnings
from dataclasses import FrozenInstanceError

import pytest

import helix_core
from helix_core.plugin_system import use_registry

OBSERVER = """
    seen = []

    @hookimpl
    def helix_event(event):
        seen.append(event.name)
        {}
"""


def test_a_subscriber_hears_events_inside_the_context_only(site):
    heard = []
    with use_registry(site.registry()):
        with helix_core.subscribe(heard.append):
            helix_core.emit("step", name="loss", loss=0.5)
        helix_core.emit("step")
    (event,) = heard
    assert (event.name, dict(event.data)) == ("step", {"name": "loss", "loss": 0.5})
    with pytest.raises(FrozenInstanceError):
        event.name = "other"
    with pytest.raises(TypeError):
        event.data["loss"] = 0


def test_selecting_and_falling_back_are_events(site):
    site.backends(
        "one", "name='cpu'", fake_target="from helix_core.reference.numpy_backend import ReferenceBackend as build"
    )
    site.backends(
        "gpu",
        "name='gpu', priority=1, probe='fake_gpu:probe'",
        extra="def probe(): return Availability(False, 'torn', broken=True)",
    )
    heard = []
    with (
        use_registry(site.registry()),
        helix_core.subscribe(heard.append),
        pytest.warns(helix_core.HelixWarning),
    ):
        helix_core.create("backend")
    assert [event.name for event in heard] == ["fell_back", "selected"]
    assert heard[1].data["component"] == "one/cpu"


def test_an_observer_that_fails_is_left_out_and_stops_nothing(site):
    site.plugin("bad", OBSERVER.format("1 / 0"))
    site.plugin("good", OBSERVER.format(""))
    import fake_bad
    import fake_good

    heard = []

    def failing(event):
        heard.append(event)
        raise ValueError("full disk")

    with use_registry(site.registry()), helix_core.subscribe(failing):
        with pytest.warns(RuntimeWarning) as caught:
            helix_core.emit("first")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            helix_core.emit("second")
    messages = [str(w.message) for w in caught]
    assert len(messages) == 2
    assert "full disk" in messages[0]
    assert "plugin 'bad'" in messages[1]
    assert [e.name for e in heard] == fake_bad.seen == ["first"]
    assert fake_good.seen == ["first", "second"]
