"""Machine code made ahead: wheels carry it, so that an installation on a common processor compiles nothing.

    targets    the instruction sets that code is made for
    archive    the file of a target: an object file for each kernel, with checksums
    load       find the archive that suits this process, and a kernel in it
    build      compile the kernels of `kernels.txt` for every target: `python -m helix_plugin_cpu.prepared`

`kernels.txt` names kernels with the types of their arguments; the tests say when it lacks one that models use.
"""
