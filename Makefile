# The commands of this repository; `make` without a target lists them.
#   ARGS    options for the program that the target runs: make test ARGS="-k idempotency"
#   PYTHON  the interpreter for .venv; by default the newest installed Python, 3.11 or newer

VENV := .venv
BIN := $(VENV)/bin
CODE := $(wildcard transferd loadtest tests)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# An install runs again only when pyproject.toml or constraints.txt is newer than its stamp.
RUN_STAMP := $(VENV)/.installed-to-run
DEVELOP_STAMP := $(VENV)/.installed-to-develop
# npm packages that lint the OpenAPI document and generate clients from it.
NODE_STAMP := $(VENV)/node/.installed

export PYTHON ENV_FILE
# Images of containers set it. Without compiled modules each of the hundreds of processes that a test run
# starts would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-configurations citus bench loadtest chaos check lint audit fmt docs constraints venv \
	services scale clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

# With exec transferd replaces the shell, so it gets Ctrl-C directly and stops its servers.
run: $(RUN_STAMP) ## Start the service with private servers
	@exec $(BIN)/transferd dev $(ARGS)

# Each pytest process starts its own servers and runs whole files. In alphabetical order the long files
# run first and the unit tests last, so all processes end at about the same time. A process that dies is
# replaced: tests/support/failures.py.
test: services $(DEVELOP_STAMP) $(NODE_STAMP) ## Run the whole test suite
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 1000 \
		--dist loadfile --no-loadscope-reorder $(ARGS)

test-configurations: services $(DEVELOP_STAMP) $(NODE_STAMP) ## Run the correctness tests in every configuration
	@$(BIN)/python -m tests.support.every_configuration \
		--numprocesses auto --maxprocesses 4 --max-worker-restart 1000 --dist loadfile $(ARGS)

# Its PostgreSQL must have Citus; `make services` does not install that.
citus: services $(DEVELOP_STAMP) $(NODE_STAMP) ## Run the correctness tests on a coordinator and two workers with Citus
	@$(BIN)/python -m tests.support.on_citus \
		--numprocesses auto --maxprocesses 2 --max-worker-restart 1000 --dist loadfile $(ARGS)

bench: services $(DEVELOP_STAMP) ## Measure throughput and latency: ARGS="--only uniform --rounds 5"
	@$(BIN)/python -m loadtest.bench $(ARGS)

loadtest: $(DEVELOP_STAMP) ## Load-test with Locust: SCENARIO=mixed SHAPE=steps HOST=http://... UI=1 REPLICAS=1 USERS=50 LEDGERS=8
	@exec $(BIN)/python -m loadtest $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SHAPE),--shape $(SHAPE)) \
		$(if $(HOST),--host $(HOST)) $(if $(UI),--ui) $(if $(REPLICAS),--replicas $(REPLICAS)) $(if $(USERS),--users $(USERS)) \
		$(if $(LEDGERS),--ledgers $(LEDGERS)) $(ARGS)

chaos: services $(DEVELOP_STAMP) ## Inject faults under load and check the ledger: ARGS="--rounds 20 --seed 7 --fault kill-postgres"
	@exec $(BIN)/python -m tests.fault.chaos $(ARGS)

check: lint audit test ## Run all checks: linters, known vulnerabilities, tests

lint: $(DEVELOP_STAMP) ## Check format, style, types, imports and insecure code
	@$(BIN)/ruff format --quiet --check $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy --strict $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive transferd loadtest

audit: $(DEVELOP_STAMP) ## Check the dependencies for known vulnerabilities (needs the internet)
	@.ci/audit $(BIN)

fmt: $(DEVELOP_STAMP) ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

docs: $(DEVELOP_STAMP) ## Update the table of settings in docs/configuration.md
	@$(BIN)/python -m tests.support.settings_table

constraints: ## Pin the newest versions of all dependencies
	@.ci/constraints

venv: $(DEVELOP_STAMP) ## Make .venv with the package, the tests and the tools

scale: ## Change the number of replicas in the compose project without losing a request: REPLICAS=3
	@deploy/scale $(REPLICAS)

services: ## Install the servers and tools that the tests start, or list what is missing
	@.ci/services

clean: ## Remove caches, build output and reports (.venv stays)
	@rm -rf build dist reports *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

$(RUN_STAMP): pyproject.toml constraints.txt
	@.ci/venv $(VENV)
	@echo 'Installing transferd into $(VENV) ...'
	@$(INSTALL) -e '.[dev-stack]'
	@touch $@

$(DEVELOP_STAMP): pyproject.toml constraints.txt
	@.ci/venv $(VENV)
	@echo 'Installing transferd and its tools into $(VENV) ...'
	@$(INSTALL) -e '.[dev-stack,tracing,test,check,bench]'
	@touch $@ $(RUN_STAMP)

# After the install into .venv, because making .venv anew removes $(VENV)/node.
$(NODE_STAMP): tests/clients/package.json | services $(DEVELOP_STAMP)
	@echo 'Installing the tools of npm into $(@D) ...'
	@.ci/node-tools $(@D)
	@touch $@
