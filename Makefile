# Two commands matter: `make quickstart` trains a byte-level Mamba on real text, `make test` passes the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

QUICKSTART = -e . \
             -e plugins/helix_plugin_lm \
             -e 'plugins/helix_plugin_training[plot]' \
             -e plugins/helix_plugin_torch \
             -e helix_plugin_cpu \
             -e plugins/helix_plugin_ssm
EVERYTHING = -e . \
             -e 'plugins/helix_plugin_lm[tokenizers]' \
             -e 'plugins/helix_plugin_training[plot]' \
             -e plugins/helix_testing \
             -e plugins/helix_plugin_torch \
             -e helix_plugin_cpu \
             -e helix_plugin_cuda \
             -e helix_plugin_metal \
             -e helix_plugin_synthetic \
             -e helix_plugin_topomemory \
             -e plugins/helix_plugin_ssm \
             -e plugins/helix_plugin_hyena \
             -e plugins/helix_plugin_blocks \
             -e plugins/helix_plugin_jax \
             -e plugins/helix_device_arrays \
             -e plugins/helix_plugin_opencl \
             -e plugins/helix_plugin_webgpu \
             -e plugins/helix_plugin_bench \
             -e plugins/helix_plugin_huggingface \
             -e plugins/helix \
             -e plugins/example_third_party

# Whatever a distribution requires is installed again when its pyproject.toml changes.
PROJECTS = pyproject.toml $(wildcard helix_plugin_*/pyproject.toml plugins/*/pyproject.toml)

# A file's tests share what they set up, so files are what the processes take.
PARALLEL = -n auto --maxprocesses=4 --dist=loadfile

.PHONY: quickstart test test-fresh test-slow fuzz drill lint bench wheels clean

quickstart: $(VENV)/.quickstart
	$(BIN)/helix train recipes/byte-lm-mamba.toml

# The same random inputs every time, so that a rare draw stops nobody's work; `test-fresh` draws new ones.
SEED = --helix-seed=20261201 --hypothesis-seed=20261201

test: $(VENV)/.everything lint
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(SEED)

test-fresh: $(VENV)/.everything
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

# Minutes more: the runs and comparisons too long for every commit.
test-slow: $(VENV)/.everything
	$(BIN)/python -m pytest -m slow $(PARALLEL) $(SEED) --timeout=1800

# Damaged and hostile inputs for every reader of files: each must be read, or refused by an error in words.
fuzz: $(VENV)/.everything
	$(BIN)/python tests/fuzz/fuzz.py --inputs 100000

# A hundred kills, two writers, a full disk, shrunk data, damaged manifests: nothing may be lost.
drill: $(VENV)/.everything
	$(BIN)/python tests/drill

lint: $(VENV)/.everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.everything
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/op_table.py

# Into dist/. Machine code for common processors goes into that of helix-plugin-cpu.
wheels: $(VENV)/.everything
	$(BIN)/python -m helix_plugin_cpu.prepared
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . $(wildcard ./helix_plugin_* ./plugins/*)

# constraints.txt keeps pip on torch's CPU build. One pip command names every local distribution, so that none is
# looked for on an index.
$(VENV)/.quickstart: constraints.txt $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt $(QUICKSTART)
	touch $@

$(VENV)/.everything: constraints.txt requirements-dev.txt $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -r requirements-dev.txt $(EVERYTHING)
	touch $@ $(VENV)/.quickstart

clean:
	rm -rf $(VENV) .venv-test build dist *.egg-info
