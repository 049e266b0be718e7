"""`helix doctor`: this machine, the plugins, the backends, the settings, and what is wrong."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from helix_core.cli.listing import print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and everything installed. Exits with 1 if a plugin or a backend is broken.

    JSON: machine (helix_core, python, executable, platform, cpu, cores), plugins (name, distribution,
    version, status, reason), backends (name, available, reason, broken, probe_ms, provides, facts), settings
    (key, value, origin), problems (what makes it exit with 1) and notes (worth knowing), both lists of texts.
    """
    report = examine()
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report["problems"]:
        ctx.exit(1)


def examine() -> dict[str, Any]:
    """Everything `helix doctor` reports, as plain data."""
    from helix_core.cli.targets import broken_components, wrong_pins
    from helix_core.plugin_system import components, get_registry, plugins

    found = plugins()
    backends = [_examine_backend(component) for component in components("backend")]
    bad = [p for p in found if p.status in ("failed", "incompatible")]
    return {
        "machine": _machine(),
        "plugins": [
            {
                "name": p.name,
                "distribution": p.distribution,
                "version": p.version,
                "status": p.status,
                "reason": p.reason,
            }
            for p in found
        ],
        "backends": backends,
        "settings": _settings(get_registry().settings),
        "problems": [
            *(f"plugin {p.name} of {p.distribution} {p.verdict}" for p in bad),
            *(f"backend {b['name']} is broken: {b['reason']}" for b in backends if b["broken"]),
            *broken_components(usable_backends=[b["name"] for b in backends if b["available"]]),
            *wrong_pins(get_registry().settings),
        ],
        "notes": [*_slow_probes(backends), *_hidden_commands()],
    }


def _examine_backend(component: Any) -> dict[str, Any]:
    from helix_core.isolation import isolated
    from helix_core.plugin_system import create, probe
    from helix_core.plugin_system.requirements import unmet_requirement

    descriptor = component.descriptor
    answer, seconds = probe(descriptor)
    unmet = next(filter(None, map(unmet_requirement, descriptor.requires)), None)
    available, reason, broken = answer.available and not unmet, unmet or answer.reason, answer.broken
    facts: dict[str, Any] = {}
    if available:
        try:
            backend = create("backend", component.full_name)
            facts = isolated(backend.describe)
        except Exception as error:
            available, reason, broken = False, f"{type(error).__name__}: {error}", True
    return {
        "name": component.full_name,
        "available": available,
        "reason": reason,
        "broken": broken,
        "probe_ms": round(seconds * 1000, 2),
        "provides": list(descriptor.provides),
        "facts": facts,
    }


def _slow_probes(backends: list[dict[str, Any]]) -> list[str]:
    from helix_core.plugin_system import SLOW_PROBE_SECONDS

    limit = SLOW_PROBE_SECONDS * 1000
    return [
        f"the probe of backend {b['name']} took {b['probe_ms']:.0f} ms, more than {limit:.0f} ms"
        for b in backends
        if b["probe_ms"] > limit
    ]


def _hidden_commands() -> list[str]:
    from helix_core.cli.commands import plugin_commands

    return [
        f"command {c.name!r} of plugin {c.plugin} must be typed as {typed!r}: the name alone is taken"
        for typed, c in plugin_commands().items()
        if typed != c.name
    ]


def _machine() -> dict[str, Any]:
    from helix_core.version import __version__

    return {
        "helix_core": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _settings(settings: Any) -> list[dict[str, Any]]:
    values: dict[str, Any] = {"strict": settings.strict}
    lists = {"allow": settings.allow, "deny": settings.deny}
    values |= {f"plugins.{key}": list(patterns) for key, patterns in lists.items() if patterns}
    values |= {f"pin.{kind}": name for kind, name in settings.pins.items()}
    values |= {f"kernels.{op}": name for op, name in settings.kernels.items()}
    return [{"key": key, "value": value, "origin": settings.origin(key)} for key, value in values.items()]


def _print(report: dict[str, Any]) -> None:
    for key, value in report["machine"].items():
        click.echo(f"{key:12}{value}")
    click.echo()
    rows = [(p["name"], p["version"], p["status"], p["reason"]) for p in report["plugins"]]
    print_table(("PLUGIN", "VERSION", "STATUS", "REASON"), rows)
    click.echo()
    backends = []
    for b in report["backends"]:
        facts = ", ".join(f"{k} {v}" for k, v in b["facts"].items() if not isinstance(v, list | dict))
        usable = "yes" if b["available"] else "no"
        backends.append((b["name"], usable, f"{b['probe_ms']:.1f} ms", ", ".join(b["provides"]), b["reason"], facts))
    print_table(("BACKEND", "USABLE", "PROBE", "PROVIDES", "REASON", "FACTS"), backends)
    click.echo()
    for s in report["settings"]:
        click.echo(f"setting {s['key']} = {s['value']}  ({s['origin']})")
    for problem in report["problems"]:
        click.echo(f"problem: {problem}")
    for note in report["notes"]:
        click.echo(f"note: {note}")
    if not report["problems"]:
        click.echo("no problems found")
