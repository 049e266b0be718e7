"""The rows of benchmarks/memory.py, a module each with a `run(small)`."""
