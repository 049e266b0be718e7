"""Compile recorded launches for a card that need not be here: `python compile_launches.py FILE TARGET...`.

FILE holds JSON lines {"module", "name", "types", "meta"}; a TARGET is sm_90 or gfx942. Prints a line for each kernel
with the shared memory it takes; a compiler error ends it. Run without TRITON_INTERPRET.
"""

import importlib
import json
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

OPTIONS = ("num_warps", "num_stages")


def target(name):
    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, 64)


def compile_launch(launch, card):
    kernel = getattr(importlib.import_module(launch["module"]), launch["name"])
    meta = dict(launch["meta"])
    if "PRECISION" in meta and card.backend == "cuda":
        meta["PRECISION"] = "tf32x3"  # what the interpreter does not have
    if "WIDEN" in meta:
        meta["WIDEN"] = False  # what only the interpreter needs
    names = kernel.arg_names
    signature = dict(zip(names, launch["types"], strict=False)) | {n: "constexpr" for n in meta if n in names}
    constants = {(names.index(n),): v for n, v in meta.items() if n in names}
    constants |= {(names.index(n),): None for n, t in signature.items() if t == "constexpr" and n not in meta}
    constants |= {(names.index(n),): 1 for n, t in signature.items() if t == "one"}
    signature = {n: "constexpr" if t == "one" else t for n, t in signature.items()}
    options = {key: meta[key] for key in OPTIONS} | {"enable_fp_fusion": True}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=card, options=options)


if __name__ == "__main__":
    file, *cards = sys.argv[1:]
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        launch = json.loads(line)
        for name in cards:
            shared = compile_launch(launch, target(name)).metadata.shared
            print(f"{launch['module'].rpartition('.')[2]}.{launch['name']} {name} {shared}", flush=True)
