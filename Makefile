# Two commands on a fresh machine with Python 3.11+ and make:
#   make demo   installs, trains and evaluates the quickstart
#   make test   installs and runs the tests
# ACCELERATOR=cuda or ACCELERATOR=tpu installs jax for it too.

PYTHON ?= python3
ACCELERATOR ?= cpu
VENV ?= .venv
WORKDIR ?= runs/quickstart
BIN := $(VENV)/bin

# Halves the time of a training step on XLA:CPU. Experimental, so it is used
# only where this jaxlib knows it: an unknown flag would end the program.
CPU_FLAG := --xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT

.PHONY: install demo bench test test-slow lint docs lock clean

install: $(VENV)/installed-$(ACCELERATOR)

$(VENV)/installed-$(ACCELERATOR): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps -e .
ifneq ($(ACCELERATOR),cpu)
	$(BIN)/python -m pip install -q -c requirements.lock -e .[$(ACCELERATOR)]
endif
	touch $@

# Runs a module with the flag where this jaxlib takes it.
RUN = flags="$$XLA_FLAGS $(CPU_FLAG)"; \
	XLA_FLAGS="$$flags" $(BIN)/python -c 'import jax; jax.devices()' \
	  2>/dev/null || flags="$$XLA_FLAGS"; \
	XLA_FLAGS="$$flags" $(BIN)/python -m

# DEMO_FLAGS shortens or changes it, such as --config.train.num_steps=100.
demo: install
	@$(RUN) bitseg_jax.main \
	  --config=configs/quickstart.py --workdir=$(WORKDIR) $(DEMO_FLAGS)

# BENCH_FLAGS such as --what=train --config.model.dtype=bfloat16.
bench: install
	@$(RUN) bitseg_jax.benchmark $(BENCH_FLAGS)

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Builds the site of the documentation into site/.
docs: install
	$(BIN)/python -m pip install -q -c requirements.lock -e .[docs]
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Writes the versions that all of the above install.
lock: install
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header \
	  --no-emit-index-url --extra dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
