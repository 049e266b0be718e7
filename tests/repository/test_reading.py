"""Files are read through one guard: what parses them by itself is listed here, with the reason."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARSERS = {
    "json.loads",
    "json.load",
    "tomllib.loads",
    "tomllib.load",
    "np.load",
    "pickle.load",
    "pickle.loads",
    "torch.load",
}
ALLOWED = {
    "helix_core/untrusted.py": "the guard",
    "helix_testing/command_line.py": "what a command prints in the kit's own process",
    "helix_testing/schedules.py": "options that the kit has just written",
    "helix_testing/memory_faults.py": "what the kit hands to its own process",
    "helix_testing/memories.py": "what the kit's own process answers",
    "plugin_system/discovery.py": "metadata of installed packages, whose code runs anyway",
    "helix_plugin_webgpu/probe.py": "a file of the system's driver, in a probe",
    "helix_plugin_huggingface/source.py": "torch.load of plain tensors, inside a guard of its own",
    "/_numba.py": "machine code of the user's own cache, whose hash was checked",
    "/_jit.py": "machine code of the user's own cache, whose hash was checked",
    "tokenizers/decoding.py": "what the library itself holds",
    "tokenizers/file.py": "looked through before the library parses it, which says what is wrong",
    "storage/write.py": "a plan of this process, as JSON has it",
    "verify/round_trips.py": "a text that the generator wrote into its sample",
}


def parsers_in(file):
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if any(name in text for name in PARSERS) else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PARSERS:
            yield f"{file.relative_to(ROOT).as_posix()}:{node.lineno}"


def test_no_reader_parses_files_by_itself():
    sources = [f for f in ROOT.rglob("*.py") if "helix" in f.parts[len(ROOT.parts)] or "plugins" in f.parts]
    skipped = {"tests", "examples", "benchmarks", "templates", "build"}
    sources = [f for f in sources if not {p for p in f.relative_to(ROOT).parts if p in skipped or p.startswith(".")}]
    assert len(sources) > 300
    found = [place for file in sources for place in parsers_in(file)]
    stray = [place for place in found if not any(place.rpartition(":")[0].endswith(name) for name in ALLOWED)]
    assert not stray, f"read these through helix_core.untrusted, or say why not: {stray}"
    idle = [name for name in ALLOWED if not any(place.rpartition(":")[0].endswith(name) for place in found)]
    assert not idle, f"these parse nothing any more: {idle}"
