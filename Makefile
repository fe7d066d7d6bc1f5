# Everything that people do with this repository; `make` alone lists it.
#   ARGS    what to hand on to `transferd dev` or pytest: make test ARGS="-k idempotency"
#   PYTHON  the interpreter for .venv; without it the newest Python from 3.11 on that is found

VENV := .venv
BIN := $(VENV)/bin
CODE := $(wildcard transferd loadtest tests)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A stamp is newer than the two files that decide what is installed, so that an install is repeated
# only when one of them changed.
RUN_STAMP := $(VENV)/.installed-to-run
DEVELOP_STAMP := $(VENV)/.installed-to-develop
# What lints the OpenAPI document and generates clients from it; $(VENV)/node is theirs alone.
NODE_STAMP := $(VENV)/node/.installed

export PYTHON ENV_FILE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-configurations bench loadtest chaos check lint audit fmt docs constraints venv \
	services scale clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

# With exec nothing stands between the terminal and transferd, so Ctrl-C lets it stop in order.
run: $(RUN_STAMP) ## Start the service with throw-away servers of its own
	@exec $(BIN)/transferd dev $(ARGS)

# Each process starts servers of its own, and a file's tests stay together on one of them. In the
# order of their names the long files come first and the unit tests last, so that both end together.
# A process that dies is replaced, however often: tests/support/failures.py.
test: services $(DEVELOP_STAMP) $(NODE_STAMP) ## Run the whole test suite
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 1000 \
		--dist loadfile --no-loadscope-reorder $(ARGS)

test-configurations: services $(DEVELOP_STAMP) ## Run the tests of correctness in every configuration
	@$(BIN)/python -m tests.support.every_configuration \
		--numprocesses auto --maxprocesses 4 --max-worker-restart 1000 --dist loadfile $(ARGS)

bench: services $(DEVELOP_STAMP) ## Measure every speed figure: ARGS="--only uniform --rounds 5"
	@$(BIN)/python -m loadtest.bench $(ARGS)

loadtest: $(DEVELOP_STAMP) ## Load-test with Locust: SCENARIO=mixed SHAPE=steps HOST=http://... UI=1 REPLICAS=1 USERS=50
	@exec $(BIN)/python -m loadtest $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SHAPE),--shape $(SHAPE)) \
		$(if $(HOST),--host $(HOST)) $(if $(UI),--ui) $(if $(REPLICAS),--replicas $(REPLICAS)) $(if $(USERS),--users $(USERS)) $(ARGS)

chaos: services $(DEVELOP_STAMP) ## Break things under load and check the ledger: ARGS="--rounds 20 --seed 7 --fault kill-postgres"
	@exec $(BIN)/python -m tests.fault.chaos $(ARGS)

check: lint audit test ## Run all there is to pass: linters, known vulnerabilities, tests

lint: $(DEVELOP_STAMP) ## Check format, style, types, the direction of imports, and for weaknesses
	@$(BIN)/ruff format --quiet --check $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy --strict $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive transferd loadtest

audit: $(DEVELOP_STAMP) ## Ask whether our dependencies have known vulnerabilities (needs the internet)
	@.ci/audit $(BIN)

fmt: $(DEVELOP_STAMP) ## Format the code and repair what ruff can
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

docs: $(DEVELOP_STAMP) ## Write the table of settings in docs/configuration.md anew
	@$(BIN)/python -m tests.support.configuration

constraints: ## Pin the newest versions of all dependencies
	@.ci/constraints

venv: $(DEVELOP_STAMP) ## Make .venv with everything for development

scale: ## Run so many replicas in the compose project, without losing a request: REPLICAS=3
	@deploy/scale $(REPLICAS)

services: ## Make sure that the servers and tools that tests start are installed
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

# After the install into .venv, which may empty that folder first.
$(NODE_STAMP): tests/clients/package.json | services $(DEVELOP_STAMP)
	@echo 'Installing the tools of npm into $(@D) ...'
	@.ci/node-tools $(@D)
	@touch $@
