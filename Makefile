# One command does everything: each target makes the environment first, and again only when what it is made from changes.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null && echo $(name))))
PIP_ARGS ?=
ARGS ?=
JOBS ?= 2

RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.attnlang-installed

.PHONY: help demo test bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    compile a pattern for a GPU, run it here, compare it with its definition, explain it, draw its mask"
	@echo "make test    ruff, pyright and all tests"
	@echo "make bench   every generated kernel checked and timed: on the GPU if there is one, else tiny sizes (ARGS=...)"
	@echo "make clean   remove what tests and builds left behind; the environment stays"
	@echo
	@echo "Each makes its own environment first, in $(VENV). It needs Python 3.11 or newer and the package index."
	@echo "  VENV=DIR      another place for the environment"
	@echo "  PYTHON=PATH   the Python to make it with (now: $(or $(PYTHON),none found))"
	@echo "  PIP_ARGS=...  further options for pip; without an NVIDIA GPU this saves gigabytes of CUDA libraries:"
	@echo "                PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'"
	@echo "  JOBS=N        test processes (now: $(JOBS))"

demo: $(INSTALLED)
	$(RUN) -m attnlang.demo $(ARGS)

test: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m pyright --pythonpath $(RUN)
	$(RUN) -m pytest -n $(JOBS) $(ARGS)

bench: $(INSTALLED)
	$(RUN) benchmarks/gpu.py --quick $(ARGS)

clean:
	rm -rf build dist demo attnlang.egg-info .pytest_cache .ruff_cache .hypothesis
	find attnlang grammar codegen runtime tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The pinned torch may come from a local folder or an index; pip itself is used as it is, never upgraded. Where Python brings
# no ensurepip (some distributions), the environment is filled by the pip of the Python outside.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; try: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { $(PYTHON) -c 'import ensurepip' 2>/dev/null && $(PYTHON) -m venv "$(VENV)"; } \
		|| $(PYTHON) -m venv --without-pip "$(VENV)"
	@if $(RUN) -m pip --version >/dev/null 2>&1; then pip="$(RUN) -m pip"; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip --python $(RUN)"; \
	else echo "no pip: install your system's python3-venv or python3-pip package" >&2; exit 1; fi; \
	echo "$$pip install -e .[dev] -c constraints.txt $(PIP_ARGS)"; \
	$$pip install --disable-pip-version-check --no-input -e '.[dev]' -c constraints.txt $(PIP_ARGS)
	@touch "$@"
