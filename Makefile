# juggler's everyday commands. `make help` lists them; each does the set-up that it needs by itself,
# inside this folder: the virtual environment is .venv, what is brought from elsewhere is in .cache.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
# Interpreters for `make conformance`; empty means all that are supported.
PYTHONS ?=
# Suites for `make conformance`; empty means those that tests/conformance/suites.py has for every day.
SUITES ?=
# Further arguments for the program that a target ends in.
ARGS ?=

# Whoever develops may change dependencies; what CI builds is what Cargo.lock says.
LOCKED := $(if $(CI),--locked)
# CI judges what the code does, not how fast; and the conformance tests build so, too.
PROFILE := $(if $(CI),quick,release)
ENGINE := -p juggler-sync -p juggler-trace -p juggler-ipc -p juggler-loop -p juggler-policy -p juggler-fetch -p juggler-fetch-cli -p juggler-launcher
RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
OTHER_TESTS := $(wildcard $(addprefix tests/,unit cli property policy map fetch loop clients typing examples))
TYPED_FOLDERS := $(wildcard python/juggler tools tests/typing)
# What has a stub, and the modules that promise their names to type checkers.
STUBBED := juggler._juggler juggler.threading juggler.queue juggler.futures juggler.multiprocessing juggler.policy juggler.downloads

# What users have is an optimised build, which is brought; BENCH_PYTHON=python3.13 names another.
BENCH_VERSION := 3.14
BENCH_BROUGHT := .cache/python/$(BENCH_VERSION)
BENCH_PYTHON ?= $(BENCH_BROUGHT)/usr/bin/python$(BENCH_VERSION)
BENCH_VENV := .cache/bench/$(notdir $(BENCH_PYTHON))
# How what is measured and what is given to others is built; `make bench-loop PGO=` measures a plain build.
PGO := --pgo

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  PYTHON=python3.13    the interpreter for .venv (3.11 to 3.15)'
	@echo '  ARGS="..."           further arguments for the program that a target ends in'

# ---------------------------------------------------------------- set-up and build

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { \
	  echo 'juggler is built with Rust, but cargo is not on PATH: install Rust from https://rustup.rs' \
	    '(or add ~/.cargo/bin to PATH)' >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'there is no "$(PYTHON)" on PATH: juggler needs CPython 3.11 to 3.15; name one with PYTHON=...' >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 15) or sys.exit( \
	  "%s is Python %d.%d: juggler needs CPython 3.11 to 3.15; name one with PYTHON=..." % ((sys.executable,) + v))'

$(VENV)/.setup: pyproject.toml | toolchain
	@echo 'Setting up $(VENV): about a minute the first time'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo '$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv' >&2; \
	  exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(PY) -m pip install --quiet --group dev
	@touch $@

# The Python sources are used where they are, so only Rust's make a new build necessary.
$(VENV)/.built: $(VENV)/.setup $(RUST_SOURCES) tools/build_backend.py
	@echo 'Building juggler: a few minutes the first time'
	PATH=$(abspath $(VENV))/bin:$$PATH MATURIN_PEP517_ARGS='--profile $(PROFILE) $(LOCKED)' \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(VENV)/.setup ## make .venv with everything that developing needs

.PHONY: build
build: $(VENV)/.built ## build juggler into .venv, optimised; does nothing when nothing changed

# With a profile the compiler knows what is run often: loops, tasks and queues become a tenth to a third faster.
.PHONY: wheel llvm-tools
wheel: $(VENV)/.setup llvm-tools ## a profile-guided wheel for $(PYTHON), in dist
	PATH=$(abspath $(VENV))/bin:$$PATH MATURIN_PEP517_ARGS='--profile release $(LOCKED) --pgo' \
	  $(PY) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .

# What reads profiles, of the version that the compiler writes.
llvm-tools: toolchain
	@[ -x "$$(rustc --print sysroot)/lib/rustlib/$$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-profdata" ] || \
	  rustup component add llvm-tools

.PHONY: demo
demo: build ## run real programs on the standard library and on juggler, and compare
	$(PY) -m compileall -q python/juggler  # as an installation does
	$(PY) examples/demo.py $(ARGS)

# ---------------------------------------------------------------- tests

.PHONY: test
test: test-engine test-loom test-python conformance ## run all the tests

.PHONY: test-engine
test-engine: ## the engine's crates by themselves, without Python
	if cargo nextest --version >/dev/null 2>&1; \
	  then cargo nextest run $(LOCKED) $(ENGINE) $(ARGS); \
	  else cargo test $(LOCKED) $(ENGINE) --lib --tests $(ARGS); fi
	cargo test $(LOCKED) $(ENGINE) --doc

# Loom replaces the atomics, so everything is compiled anew: apart, and without the slow link.
.PHONY: test-loom
test-loom: export RUSTFLAGS := --cfg loom
test-loom: export CARGO_PROFILE_RELEASE_LTO := off
test-loom: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS := 16
test-loom: ## every interleaving of the primitives and queues, by loom
	cargo test $(LOCKED) --release -p juggler-sync -p juggler-ipc -p juggler-loop --test 'loom*' --target-dir target/loom $(ARGS)

# Status 5 is that no test was chosen: no fault if somebody chose.
pytest = $(PY) -m pytest $(1) $(ARGS) || [ $$? -eq $(if $(ARGS),5,0) ]

# Most of these tests wait most of the time. What the processes' tests say is shown when they are through.
.PHONY: test-python test-python-processes test-python-others
test-python: build ## the Python package: units, maps, processes, event loop, clients, downloads, examples
	$(MAKE) --no-print-directory --jobs=2 test-python-processes test-python-others

test-python-processes: build
	said=$$(mktemp); trap 'echo; cat "$$said"; rm -f "$$said"' EXIT; { $(call pytest,tests/process); } >"$$said" 2>&1

test-python-others: build
	$(call pytest,$(OTHER_TESTS))

.PHONY: stress-processes
stress-processes: build ## 1,000 kills at random during 100,000 calls, by each start method; ARGS="--seed 1 --large"
	$(PY) tests/process/kill_at_random.py $(ARGS)

.PHONY: conformance
conformance: setup ## CPython's own tests on every CPython; PYTHONS="3.13 3.14" SUITES="queue locks" for some
	$(PY) tests/conformance/matrix.py $(PYTHONS) $(addprefix --suite=,$(SUITES)) $(ARGS)

.PHONY: conformance-all
conformance-all: setup ## the same with every start method of processes on every CPython: an hour
	$(PY) tests/conformance/matrix.py $(PYTHONS) --all $(ARGS)

# ---------------------------------------------------------------- checks

.PHONY: check
check: check-rust check-python check-layers ## formats, lints, types, stubs, and which layer may use which

.PHONY: check-rust
check-rust: $(VENV)/.setup
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(PY)) cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	RUSTFLAGS='--cfg loom' cargo clippy $(LOCKED) -p juggler-sync -p juggler-ipc -p juggler-loop --all-targets --target-dir target/loom -- -D warnings

# mypy 2.4 crashes now and then (status 2, in one of some fifty runs), where another run finds nothing:
# a crash is not a verdict, so it is asked again.
mypy = $(PY) -m mypy $(1) || { [ $$? -eq 2 ] && $(PY) -m mypy $(1); }

.PHONY: check-python
check-python: build
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(call mypy,$(TYPED_FOLDERS))
	$(call mypy,tests/conformance)
	$(call mypy,examples tests/examples)
	$(call mypy,benches/python)
	$(PY) -m mypy.stubtest $(STUBBED) --allowlist tests/typing/stubtest-allowlist.txt --ignore-unused-allowlist

.PHONY: check-layers
check-layers: $(VENV)/.setup
	$(PY) tools/check_layers.py

.PHONY: fmt
fmt: setup ## format everything
	cargo fmt --all
	$(PY) -m ruff check --select I --fix
	$(PY) -m ruff format

.PHONY: reference
reference: build ## write docs/reference anew from the docstrings
	$(PY) tools/make_reference.py

# ---------------------------------------------------------------- benchmarks

.PHONY: bench-threads bench-processes bench-loop bench-fetch bench-map bench-venv
bench-threads: bench-venv ## threads, queues, futures: ratios against the standard library and the peers
	$(BENCH_VENV)/bin/python benches/python/threads.py $(ARGS)

bench-processes: bench-venv ## process pools and channels: ratios likewise
	$(BENCH_VENV)/bin/python benches/python/processes.py $(ARGS)

bench-loop: bench-venv ## the event loop: ratios likewise
	$(BENCH_VENV)/bin/python benches/python/loop.py $(ARGS)

bench-fetch: bench-venv ## the downloader: ratios against wget2, curl, aria2c and aiohttp, from a local nginx
	for program in nginx wget2 aria2c; do tools/get-program $$program; done
	$(BENCH_VENV)/bin/python benches/python/fetch.py $(ARGS)

bench-map: bench-venv ## `juggler.map` choosing by itself against every fixed choice
	$(BENCH_VENV)/bin/python benches/python/map.py $(ARGS)

bench-venv: $(BENCH_VENV)/.built$(PGO)

$(BENCH_VENV)/.built$(PGO): $(RUST_SOURCES) tools/build_backend.py $(wildcard tools/training/*.py) benches/python/requirements.txt | $(VENV)/.setup
	$(if $(PGO),$(MAKE) --no-print-directory llvm-tools)
	$(if $(filter $(BENCH_BROUGHT)/%,$(BENCH_PYTHON)),tools/get-python $(BENCH_VERSION))
	test -x $(BENCH_VENV)/bin/python || $(BENCH_PYTHON) -m venv --without-pip $(BENCH_VENV)
	CPATH=$(abspath $(BENCH_BROUGHT)/usr/include) $(PY) -m pip --python $(BENCH_VENV)/bin/python install --quiet -r benches/python/requirements.txt
	@echo 'Building juggler for $(BENCH_PYTHON)$(if $(PGO), twice with a training in between): up to ten minutes'
	PATH=$(abspath $(VENV))/bin:$$PATH MATURIN_PEP517_ARGS='--profile release $(LOCKED) $(PGO)' \
	  CARGO_TARGET_DIR=$(abspath .cache/bench/target) \
	  $(PY) -m pip --python $(BENCH_VENV)/bin/python install --quiet --disable-pip-version-check --editable .
	rm -f $(BENCH_VENV)/.built*
	touch $@

.PHONY: clean
clean: ## remove everything that was built or brought
	rm -rf target .cache dist juggler.data $(VENV) python/juggler/_juggler.*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
