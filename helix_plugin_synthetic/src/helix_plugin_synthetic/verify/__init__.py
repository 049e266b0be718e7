"""Verification: is what a generator makes what it says it makes?"""

from helix_plugin_synthetic.verify.check import Check
from helix_plugin_synthetic.verify.report import verify, write_report
from helix_plugin_synthetic.verify.round_trips import round_trips

__all__ = ["Check", "round_trips", "verify", "write_report"]
