# Everything runs in .venv, which is brought up to date when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: browser demo test check docs format bench-serving bench-quality bench-duplicates bench-cleaning bench-clusters bench-whole clean

demo: .venv/.ready    ## set-up and the main job: the sample dataset, by a real model on this machine
	$(BIN)/kun-build demo/recipe.yaml --output runs/demo
	$(BIN)/python demo/show.py runs/demo/dataset

test: .venv/.dev      ## set-up and the whole suite, as CI runs it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

check: .venv/.dev     ## the everyday part: format, lint, types and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -m 'not slow and not model'

browser:              ## headless Chromium for the tests of the report page (Debian, as root); else they are skipped
	@command -v chromedriver >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	&& apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
	|| echo "no Chromium: the tests of the report page will be skipped"

docs: .venv/.dev      ## docs/api.md, out of the docstrings of the public names
	$(BIN)/python docs/api.py > docs/api.md

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-clusters: .venv/.dev  ## the table of docs/clusters.md: Ray with 2 workers against 2 processes
	$(BIN)/python benchmarks/clusters.py

bench-serving: .venv/.dev   ## the first table of docs/speed.md
	$(BIN)/python benchmarks/serving.py

bench-whole: .venv/.dev   ## a dataset of the size of COIG-Kun through all stages, against a simulator: memory, CPU per request
	$(BIN)/python benchmarks/whole.py $(or $(CORPUS),../shared/data/corpus) $(if $(ROWS),--rows $(ROWS))

bench-quality: .venv/.dev   ## the table of measured quality in README; FILE=judged.jsonl, one judged pair a line
	$(BIN)/python benchmarks/quality.py $(or $(FILE),../shared/data/judged/dev.jsonl) ../shared/data/seeds/*.jsonl

bench-duplicates: .venv/.dev   ## the search for near-duplicates: speed, verdicts, memory and time of a million documents
	$(BIN)/python benchmarks/duplicates.py $(or $(CORPUS),../shared/data/corpus) $(if $(ROWS),--rows $(ROWS))

bench-cleaning: .venv/.dev  ## the last table of docs/speed.md; CORPUS=a folder of JSONL with `text`
	$(BIN)/python benchmarks/cleaning_at_size.py $(or $(CORPUS),../shared/data/corpus) $(if $(ROWS),--rows $(ROWS))
	$(BIN)/python benchmarks/cleaning.py $(or $(CORPUS),../shared/data/corpus)

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable .
	touch $@

# torch first, alone and pinned: left to itself, pip would bring a build for GPUs.
.venv/.dev: .venv/.ready
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev,train,ray,s3]'
	touch $@

clean:
	rm -rf .venv runs build dist
