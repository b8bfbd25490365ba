# make demo   the main job, on ComfyUI where there is one
# make test   everything, on every ComfyUI that is found
PYTHON ?= python3
N ?= 500
venv := .venv
python := $(venv)/bin/python

.PHONY: demo test bench geometry evaluate lint clean

demo: $(venv)/ready
	$(python) workflows/demo.py $(ARGS)

test: $(venv)/ready
	$(python) tests run_all $(ARGS)

bench: $(venv)/ready
	$(python) tests bench $(ARGS)

geometry: $(venv)/ready
	$(python) tests geometry $(if $(DATA),--data "$(DATA)") $(ARGS)

evaluate: $(venv)/ready
	$(python) tests miniature.experiments.evaluate --n $(N) $(ARGS)

lint: $(venv)/ready
	$(python) -m ruff check .

clean:
	rm -rf build $(venv)

$(venv)/ready: pyproject.toml
	$(PYTHON) -m venv $(venv)
	$(python) -m pip install --quiet --upgrade pip
	$(python) -m pip install --quiet -e ".[test]"
	touch $@
