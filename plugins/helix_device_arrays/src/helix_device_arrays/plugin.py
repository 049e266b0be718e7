"""This distribution is a library of backends: it provides no component itself."""

from __future__ import annotations

PLUGIN_API = "1.0"
