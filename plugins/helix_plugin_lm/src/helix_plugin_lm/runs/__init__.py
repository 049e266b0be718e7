"""Run folders: what training leaves behind and generation starts from."""

from helix_plugin_lm.runs.load import LoadedRun, load_run
from helix_plugin_lm.runs.run_folder import RunFolder
from helix_plugin_lm.runs.spec import RunSpec

__all__ = ["LoadedRun", "RunFolder", "RunSpec", "load_run"]
