# make demo    the main job, on ComfyUI where there is one
# make quick   the tests that need no ComfyUI, no browser and no patience: under a minute
# make lint    style, format and types
# make test    everything, on every ComfyUI that is found
# make cluster-test   Ray clusters, simulated on this machine
# make fuzz    hostile inputs: N= of them, from SEED=
# make bench   speed and memory, beside what was measured before
PYTHON ?= python3
N ?= 500
SEED ?= 1
venv := .venv
python := $(venv)/bin/python

.PHONY: demo quick lint test cluster-test fuzz bench geometry evaluate clean

demo: $(venv)/ready
	$(python) workflows/demo.py $(ARGS)

# One thread a process: two processes share the cores. ARGS can name a file or a test.
quick: $(venv)/ready
	OMP_NUM_THREADS=1 $(python) -m pytest -q -n 2 -m "not slow" $(or $(ARGS),tests --ignore=tests/host)

test: $(venv)/ready
	$(python) tests run_all $(ARGS)

# Installs Ray beside the rest first (600 MB).
cluster-test: $(venv)/ready
	$(python) -m pip install --quiet -e ".[test-cluster]"
	$(python) -m pytest -q tests/workflows/many $(ARGS)

fuzz: N = 10000
fuzz: $(venv)/ready
	$(python) tests fuzz.run $(N) $(SEED)

bench: $(venv)/ready
	$(python) tests bench $(ARGS)

geometry: $(venv)/ready
	$(python) tests geometry $(if $(DATA),--data "$(DATA)") $(ARGS)

evaluate: $(venv)/ready
	$(python) tests miniature.drawings.evaluate --n $(N) $(ARGS)

lint: $(venv)/ready
	$(python) tests lint

clean:
	rm -rf build $(venv)

$(venv)/ready: pyproject.toml
	$(PYTHON) -m venv $(venv)
	$(python) -m pip install --quiet --upgrade pip
	$(python) -m pip install --quiet -e ".[test]"
	touch $@
