# Two commands: `make run` trains the quickstart, `make test` runs the tests. Each makes .venv when there is none.
# ARGS goes to either at its end: `make test ARGS=tests/test_install.py`.

VENV := .venv
CONSTRAINTS := constraints.txt
# python3.11 is what constraints.txt was tested with. `make PYTHON=... run` takes another.
PYTHON = $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: run test lint docs audit oldest fresh docker-steps clean
.NOTPARALLEL:  # one pip at a time

run: $(VENV)/.installed
	$(VENV)/bin/python -m lit_rnn fit --config configs/quickstart.yaml $(ARGS)

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff check --preview --select PLW1514 lit_rnn datamodules results  # UTF-8 whatever the locale
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

docs: $(VENV)/.installed-dev  # the site, at http://127.0.0.1:8000, built anew when a page changes
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

audit: $(VENV)/.installed-dev  # known vulnerabilities of the versions in constraints.txt
	$(VENV)/bin/python .ci/audit.py

# All tests with the lowest versions that pyproject.toml and setup.cfg promise, in an environment of its own.
oldest:
	$(MAKE) test VENV=.oldest CONSTRAINTS=constraints-lowest.txt 'extras=[compiler,mlflow,tensorboard,test]'

# Both commands where nothing else is: Debian 12 in a folder, python3, python3-venv and make, an ordinary user.
fresh:
	bash .ci/fresh $(ARGS)

# The Dockerfile's own lines without Docker: in Debian 12 in a folder, the image's command as its user, no network.
docker-steps:
	bash .ci/docker-steps

# Not runs/ and data/: those are yours.
clean:
	rm -rf $(VENV) .oldest build dist site *.egg-info .fresh .docker-steps .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-compile: Python compiles what it imports; of all 20,000 files that takes a minute
install = $(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c $(CONSTRAINTS)
$(VENV)/.installed-test: extras = [test]
# whose attacks ours are compared with; the tests that need it are skipped without it
$(VENV)/.installed-test: also = adversarial-robustness-toolbox
$(VENV)/.installed-dev: extras = [dev]
$(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-dev: setup.cfg setup.py pyproject.toml $(CONSTRAINTS) | $(VENV)/.made
	@echo "Installing lit_rnn$(extras) into $(VENV); the first time this takes a few minutes."
	@$(install) -e '.$(extras)'
	@test -z "$(also)" || $(install) $(also) || \
		echo "$(also) could not be installed: the tests that need it are skipped." >&2
	@$(VENV)/bin/python -c 'import sys; from lit_rnn.scan.compiler import find_compiler; sys.exit(not find_compiler())' || \
		$(install) ziglang || \
		echo "There is no C++ compiler, and ziglang could not be installed: backend fused runs instead of native." >&2
	@touch $@

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: on Debian, apt install python3 python3-venv."; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: on Debian, apt install $(notdir $(PYTHON))-venv."; exit 1; } >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
