# `make serve` starts the relay, `make test` runs everything. Both install what they need into $(VENV).

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000

# Where `make serve` keeps tokens and mailboxes, unless SOCKET2ME_STORE_URL or REDIS_URL is set.
STORE ?= relay.db

URL = http://$(or $(filter-out 0.0.0.0 ::,$(BIND)),127.0.0.1):$(PORT)
BIN = $(VENV)/bin
INSTALLS = pyproject.toml requirements.txt $(wildcard requirements/*.txt) Makefile

.PHONY: serve try-it test check coverage servers conformance lint fix docs bench yardstick chaos smee-chaos attack clean

serve: $(VENV)/.can-serve
	@printf '\nThe relay is at %s\nTry it, in another terminal in this folder:\n\n' $(URL)
	@$(MAKE) --no-print-directory try-it
	@echo
	@export SOCKET2ME_STORE_URL="$${SOCKET2ME_STORE_URL:-$${REDIS_URL:-sqlite:///$(STORE)}}"; \
	exec $(BIN)/gunicorn -k eventlet wsgi:app

try-it:
	@echo '  TOKEN=$$(curl -s $(URL)/v1/new)'
	@echo '  $(BIN)/python examples/listen.py $(URL)/$$TOKEN &'
	@echo '  curl --retry 3 -d hello=world $(URL)/v1/go/$$TOKEN'

# Tests start Python hundreds of times: it reads compiled modules, whatever the environment says of them.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

# Everything. Tests that need nginx or a Redis are skipped where they are not installed: `make servers` installs them.
# There are more workers than cores, since many tests wait.
test: $(VENV)/.can-test $(if $(CI),$(VENV)/.has-servers) tests/js/node_modules lint
	$(PYTEST) -n 6 --dist=worksteal

# What needs no server, in less than a minute.
check: lint
	$(PYTEST) -q -n 2 tests/unit

# The lines that the tests reach, in the relay's processes and their native threads too. Takes longer than `make test`,
# and each test does: one that exceeds its time may end the run, and what it has not come to counts as never reached.
coverage: $(VENV)/.can-test tests/js/node_modules
	$(BIN)/coverage erase
	-PYTHONPATH=$(CURDIR)/tests/support/measured $(BIN)/coverage run -m pytest -q -n 4 --dist=worksteal --timeout=600
	$(BIN)/coverage combine -q && $(BIN)/coverage report

# nginx, chromium, promtool, zsh, fish, and redis-server where PyPI has none for this Python, from Debian. As root.
servers: $(VENV)/.has-servers

# The suites of docs/compatibility.md: Autobahn's own, those that are restated, and the published clients. A few minutes.
conformance: $(VENV)/.can-conform tests/js/node_modules
	$(PYTEST) -q -n 2 tests/live/conformance tests/live/legacy tests/live/security/test_hostile_callers.py --junitxml=build/conformance.xml
	@$(BIN)/python -m tests.support.conformance_table build/conformance.xml

lint: $(VENV)/.can-test
	$(BIN)/ruff format --check -q
	$(BIN)/ruff check -q
	$(BIN)/mypy

fix: $(VENV)/.can-test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The site of docs/ in build/site: every link and anchor is checked. Before it, docs/http-api.md from the OpenAPI document
# and docs/man from the help of the commands.
docs: $(VENV)/.can-docs
	$(BIN)/python -m tests.support.man_pages docs/man
	$(BIN)/python -m tests.support.http_api_page > docs/http-api.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo 'The site is in build/site. To read it: $(BIN)/mkdocs serve'

bench: $(VENV)/.can-test yardstick
	$(BIN)/python benchmarks/table.py

# What the relay is measured against: a bare WSGI app under gunicorn 25.3, the last with an eventlet worker.
yardstick: .venv-yardstick/.done

.venv-yardstick/.done: $(VENV)/bin/python
	@$(PYTHON) -m venv .venv-yardstick
	@.venv-yardstick/bin/python -m pip install -q 'gunicorn==25.3.*' 'eventlet==0.41.*'
	@.venv-yardstick/bin/python -m pip install -q 'gunicorn_h1c>=0.6.10,<0.7' || echo 'No C compiler: going on without it.'
	@touch $@

# Ten minutes of random faults, to each store and a cluster. `make chaos ARGS='--store cluster --faults 100 --seed 7'`.
chaos: $(VENV)/.can-test servers tests/js/node_modules
	$(BIN)/python -m tests.chaos $(ARGS)

# A stock smee-client whose relay and network fail, 50 times with each store. `make smee-chaos ARGS='--store redis --seed 7'`.
smee-chaos: $(VENV)/.can-test servers tests/js/node_modules
	$(BIN)/python -m tests.smee_chaos $(ARGS)

# A search for inputs that cost much, of three minutes. `make attack ARGS='--seconds 600 --seed 1'`.
attack: $(VENV)/.can-test
	$(BIN)/python -m tests.fuzz $(ARGS)

clean:
	rm -rf $(VENV) .venv-yardstick tests/js/node_modules

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "socket2me needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment. On Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.can-serve: $(VENV)/bin/python $(INSTALLS)
	@echo 'Installing into $(VENV) ...'
	@$(BIN)/python -m pip install -q -e '.[server]'
	@touch $@

$(VENV)/.can-test: $(VENV)/bin/python $(INSTALLS)
	@echo 'Installing into $(VENV) ...'
	@$(BIN)/python -m pip install -q -e '.[test]'
	@$(BIN)/python -m pip install -q -e '.[fast]' || echo 'No C compiler: going on without the extra "fast".'
	@touch $@ $(VENV)/.can-serve

$(VENV)/.can-docs: $(VENV)/.can-test
	@$(BIN)/python -m pip install -q -e '.[docs]'
	@touch $@

$(VENV)/.can-conform: $(VENV)/.can-test
	@$(BIN)/python -m pip install -q -e '.[conformance]' || echo 'Going on without the extra "conformance".'
	@touch $@

$(VENV)/.has-servers: $(VENV)/.can-test tests/support/servers.sh
	@! sh tests/support/servers.sh $(BIN)/python || touch $@

tests/js/node_modules: tests/js/package.json
	cd tests/js && npm install --no-audit --no-fund --loglevel=error
	@touch $@
