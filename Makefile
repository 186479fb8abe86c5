# One line a target; .ci/run calls the same ones. PYTHON=... chooses the interpreter, ARGS=... adds arguments,
# WORKERS=... says how many processes test.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=

.PHONY: env demo test test-long check fmt bench docs peers
.DELETE_ON_ERROR:

env: .venv/product .venv/tools ## .venv with all that the other targets need

demo: .venv/product ## install the product alone and run its main job
	.venv/bin/medveil demo $(ARGS)

# Files in the order of their folders: those of few and long tests come early, and no process waits for another. One
# process more than there are cores: whoever tests real gateways waits for a third of the time.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: env ## every test but the long campaigns; a skip says what to install
	$(PYTEST) $(ARGS)

test-long: env ## the campaigns marked "long"
	$(PYTEST) -m long $(ARGS)

check: env ## lint, format, types, floors
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

fmt: env ## format and sort imports in place
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

bench: env ## side-by-side figures; ARGS="--quick", ARGS="zkp --json", ...
	$(PY) -m benchmarks $(ARGS)

docs: env ## check that links, paths and commands in the documents resolve
	$(PY) docs/check.py

peers: $(patsubst benchmarks/peers/%.txt,.peers/%/made,$(wildcard benchmarks/peers/*.txt)) ## an environment for each outside peer of the benchmarks
	@test -n "$^" || echo "No benchmark of today needs an environment of its own: the peers are libraries of .venv."

# The environment in two steps, so that `make demo` installs no test tool and neither repeats the other's work.
.venv/made:
	@test -n "$(PYTHON)" || { echo "medveil needs Python 3.11 or newer; name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --quiet --python $(PY) install pip; }
	@$(INSTALL) pip
	@touch $@

.venv/product: .venv/made pyproject.toml constraints.txt
	@echo "Installing medveil into .venv: about a minute the first time."
	@$(INSTALL) --editable '.[demo]'
	@touch $@

.venv/tools: .venv/product
	@echo "Installing the tools of the tests and checks into .venv."
	@$(INSTALL) --editable '.[demo,gateway,postgres,hsm]' --group test --group check
	@touch $@

.peers/%/made: benchmarks/peers/%.txt
	@$(PYTHON) -m venv .peers/$* && .peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
