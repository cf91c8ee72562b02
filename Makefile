# Everything runs in .venv, which `make install` makes and keeps up to date; needs Python 3.11, git, make.
PY := .venv/bin/python
STAGEGATE := .venv/bin/stagegate
TYPED := $(wildcard core reviews tasks flows deployments cli)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint up down bench lock

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

install: ## .venv with the locked packages (about 2.7 GB the first time, then well under a second)
	@bash tools/install.sh

demo: install ## write and judge 100 instruction pairs with the bundled base model
	@$(STAGEGATE) pilot configs/demo.yaml

test: install ## every test that needs neither a GPU nor money
	@$(PY) tools/run_tests.py

lint: install ## ruff, mypy --strict, import contracts, boundaries; all of them, then the verdict
	@failed=; \
	check() { printf -- '--- %s\n' "$$*"; "$$@" || failed="$$failed\n  $$*"; }; \
	check .venv/bin/ruff check . ; \
	check .venv/bin/ruff format --check . ; \
	check .venv/bin/mypy --strict $(TYPED) ; \
	check .venv/bin/lint-imports ; \
	check $(PY) tools/boundaries.py ; \
	if [ -n "$$failed" ]; then printf "lint: failed:$$failed\n"; exit 1; fi; echo 'lint: clean'

up: install ## the local stack: Prefect server, work pools, workers, deployments
	@$(STAGEGATE) up

down: install ## stop what `make up` started
	@$(STAGEGATE) down

bench: install ## benchmarks, each against a peer or a limit measured in the same run
	@failed=0; for file in $(sort $(wildcard benchmarks/bench_*.py)); do \
		echo "--- $$file"; $(PY) $$file || failed=1; done; exit $$failed

lock: ## remake requirements.lock from pyproject.toml (tools/lock.sh says how)
	@test -x $(PY) || bash tools/install.sh
	@$(PY) -m pip install --quiet uv
	@bash tools/lock.sh
