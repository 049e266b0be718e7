"""`helix doctor`: this machine, the plugins, the backends, the settings, and what is wrong."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from helix_core.cli.table import print_json, print_table

SLOW_PROBE_SECONDS = 0.05


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and everything installed. Exits with 1 if a plugin or a backend is broken.

    JSON: machine, plugins (name, status, reason), backends (name, available, reason, broken, probe_ms, facts),
    settings (key, value, origin) and problems (a list of texts).
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
    from helix_core.plugin_system import components, create, get_registry, plugins, probe
    from helix_core.plugin_system.requirements import unmet_requirement

    problems = [f"plugin {p.name} is {p.status}: {p.reason}" for p in plugins() if p.status in ("failed", "incompatible")]
    backends = []
    for component in components("backend"):
        answer, seconds = probe(component.descriptor)
        unmet = next(filter(None, map(unmet_requirement, component.descriptor.requires)), None)
        available, reason, broken = answer.available and not unmet, unmet or answer.reason, answer.broken
        facts: dict[str, Any] = {}
        if available:
            try:
                facts = create("backend", component.full_name).describe()
            except Exception as error:
                available, reason, broken = False, f"{type(error).__name__}: {error}", True
        if broken:
            problems.append(f"backend {component.full_name} is broken: {reason}")
        if seconds > SLOW_PROBE_SECONDS:
            problems.append(f"the probe of backend {component.full_name} took {seconds * 1000:.0f} ms")
        backends.append(
            {
                "name": component.full_name,
                "available": available,
                "reason": reason,
                "broken": broken,
                "probe_ms": round(seconds * 1000, 2),
                "provides": list(component.descriptor.provides),
                "facts": facts,
            }
        )
    return {
        "machine": _machine(),
        "plugins": [{"name": p.name, "version": p.version, "status": p.status, "reason": p.reason} for p in plugins()],
        "backends": backends,
        "settings": _settings(get_registry().settings),
        "problems": problems,
    }


def _machine() -> dict[str, Any]:
    import helix_core

    return {
        "helix_core": helix_core.__version__,
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
    values |= {f"plugins.{key}": list(getattr(settings, key)) for key in ("allow", "deny") if getattr(settings, key)}
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
    rows = []
    for b in report["backends"]:
        facts = ", ".join(f"{k} {v}" for k, v in b["facts"].items() if not isinstance(v, list | dict))
        rows.append((b["name"], "yes" if b["available"] else "no", ", ".join(b["provides"]), b["reason"], facts))
    print_table(("BACKEND", "USABLE", "PROVIDES", "REASON", "FACTS"), rows)
    click.echo()
    for s in report["settings"]:
        click.echo(f"setting {s['key']} = {s['value']}  ({s['origin']})")
    for problem in report["problems"]:
        click.echo(f"problem: {problem}")
    if not report["problems"]:
        click.echo("no problems found")
