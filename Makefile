# make demo     from nothing to a verified INT8 bundle: default install (no torch), build, verify
# make test     from nothing to a judged checkout: ruff, mypy strict, pytest (what CI runs)
# make kernels  nvcc and CMake to build/kernels/libndp_kernels.so, and the resource table checked
#
# Each target makes its own virtual environment once; constraints.txt pins what goes into it.

PYTHON ?= python3
PYTEST_ARGS ?=
BUNDLE ?= bundle-demo
NVCC ?= $(or $(NDP_NVCC),$(wildcard $(CUDA_HOME)/bin/nvcc),$(shell command -v nvcc),/usr/local/cuda/bin/nvcc)

# --no-compile: torch alone is 20 s of byte-compiling, most of it for files that nobody imports.
PIP := -m pip --disable-pip-version-check --no-input install -q --no-compile -c constraints.txt
DEMO := .venv-demo/bin/python
TEST := .venv-test/bin/python
INPUTS := Makefile pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest kernels clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# The editable install is the default (finder) one: `python -m ndp_edge.build` in this folder
# finds ./ndp_edge first, and only that finder adds the mapped rooms (export, calib, ...) to it.
.venv-demo/.stamp: $(INPUTS)
	@echo "== .venv-demo: the default install, without torch"
	$(PYTHON) -m venv --clear .venv-demo
	$(DEMO) $(PIP) setuptools
	$(DEMO) $(PIP) --no-build-isolation -e .
	@touch $@

.venv-test/.stamp: $(INPUTS)
	@echo "== .venv-test: the dev extra, with torch"
	$(PYTHON) -m venv --clear .venv-test
	$(TEST) $(PIP) setuptools
	$(TEST) $(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: .venv-demo/.stamp
	$(DEMO) -m ndp_edge.build --int8 --out $(BUNDLE) --force
	$(DEMO) -m ndp_edge.verify $(BUNDLE)
	@echo "== the report: $(BUNDLE)/report.html"

test: lint types pytest

lint: .venv-test/.stamp
	$(TEST) -m ruff check .
	$(TEST) -m ruff format --check .

# mypy reads folders, not import hooks: it gets the tree as the wheel has it, made of links.
types: .venv-test/.stamp
	@rm -rf build/types && mkdir -p build/types/ndp_edge
	@ln -s $(CURDIR)/ndp_edge/* $(CURDIR)/kernels $(CURDIR)/export $(CURDIR)/calib \
		$(CURDIR)/bench build/types/ndp_edge/
	cd build/types && $(CURDIR)/$(TEST) -m mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p ndp_edge

pytest: .venv-test/.stamp
	$(TEST) -m pytest -m "not slow" --durations=15 $(PYTEST_ARGS)

# The check comes before the prerequisite: a machine without nvcc is told so at once.
kernels:
	@command -v $(NVCC) >/dev/null || { \
		echo "make kernels: no nvcc; install the CUDA toolkit 13.0, or set NDP_NVCC" >&2; exit 3; }
	@command -v cmake >/dev/null || { echo "make kernels: no CMake; apt install cmake" >&2; exit 3; }
	@$(MAKE) --no-print-directory .venv-test/.stamp
	cmake -S kernels -B build/kernels -DCMAKE_CUDA_COMPILER=$(NVCC)
	cmake --build build/kernels --parallel
	NDP_NVCC=$(NVCC) $(TEST) -m ndp_edge.bench.kernel_resources --check

clean:
	rm -rf .venv-demo .venv-test $(BUNDLE) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
