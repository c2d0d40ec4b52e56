# make demo   everything from nothing: the lab, the speech service, a load that makes it scale, a report
# make test   everything from nothing: all checks and tests
# make help   the other targets

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Reports go below the folder that commands are typed in: here, also with make -C.
export PWD := $(CURDIR)
PLAYBOOK := $(BIN)/ansible-playbook
# Two at a time; tests that share a lab stay together (tests/integration/conftest.py).
SIDE_BY_SIDE := -n 2 --dist loadfile
# Where it is set, each process compiles every file anew, and pytest rewrites its tests in each worker.
unexport PYTHONDONTWRITEBYTECODE
# make demo RIVA_ENGINE=nim RIVA_AUTOSCALER=keda; what an existing lab has stays.
RIVA_ENGINE ?= sdk
RIVA_AUTOSCALER ?= hpa
# Half of the lab's GPUs are too old for a NIM.
LAB_OPTIONS := $(if $(filter nim,$(RIVA_ENGINE)),--gpu-nodes 4)
CHOICE := $(if $(filter-out sdk,$(RIVA_ENGINE)),-e riva_engine=$(RIVA_ENGINE)) \
          $(if $(filter-out hpa,$(RIVA_AUTOSCALER)),-e riva_autoscaler=$(RIVA_AUTOSCALER))
DEMO_PROFILE := [{"streams": 4, "duration": 20}, {"streams": 46, "duration": 200, "ramp": 120}]

.PHONY: bench bench-scaling bench-nodes help setup setup-tests lab lab-down lab-status site verify load-test demo lint sanity unit \
        integration test test-long clean

help:  ## show this text
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup:  ## install what is needed: Debian or Ubuntu packages, and Python packages into .venv
	@lab/setup.sh

setup-tests:
	@lab/setup.sh tests

lab: setup  ## bring the lab up
	$(BIN)/python -m lab up $(LAB_OPTIONS)
	$(if $(filter keda,$(RIVA_AUTOSCALER)),$(BIN)/python -m lab add keda)

lab-down: setup  ## end the lab; it leaves nothing behind but its cache
	$(BIN)/python -m lab down

lab-status: setup  ## show the state of every part of the lab
	$(BIN)/python -m lab status

site: lab  ## install everything on the lab, and prove each link of the chain
	$(PLAYBOOK) site.yml $(CHOICE)

verify: setup  ## prove each link of the chain again; changes nothing
	$(PLAYBOOK) playbooks/verify.yml $(CHOICE)

load-test: setup  ## load the speech service; the report lies in build/report
	$(PLAYBOOK) playbooks/load_test.yml -e '{"load_test_profile": $(DEMO_PROFILE), "load_test_expect_replicas": [1, 3, 1]}'

demo: site load-test  ## the main job: lab, site.yml, load, 1 -> 3 -> 1 replicas, report
	@echo "The report: $(CURDIR)/build/report/index.html"

lint: setup-tests  ## ruff, mypy, yamllint, ansible-lint, helm lint, kubeconform, shellcheck, antsibull-docs, changelog fragments
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	$(BIN)/ansible-lint -q
	$(BIN)/helm lint --quiet --strict roles/riva/files/chart $(dir $(wildcard lab/charts/*/Chart.yaml))
	PYTHONPATH=collections $(BIN)/python -m tests.conform
	$(BIN)/shellcheck --external-sources $(shell git grep -lE '^#!.*\b(ba)?sh$$' 2>/dev/null || echo lab/setup.sh .ci/run)
	@# It copies kubernetes.core as git has it; inside .venv that would be nothing, so git may not look beyond.
	GIT_CEILING_DIRECTORIES=$(CURDIR)/.venv $(BIN)/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
	$(BIN)/antsibull-changelog lint

sanity: setup-tests  ## ansible-test sanity, but for pylint and yamllint (docs/contributing.md says why)
	tests/ansible_test.sh sanity --skip-test pylint --skip-test yamllint

unit: setup-tests  ## unit tests, without those that take long (tests/unit/conftest.py names them); an answer in a minute
	@# Three: part of it waits, for servers and processes.
	$(BIN)/pytest -n 3 --dist loadfile -m "not thorough" tests/unit

integration: setup-tests  ## tests on a fresh lab named `test`, beside any other lab
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/integration

test: lint sanity  ## all checks, unit and integration tests
	@# First, or the tests that ask promtool would be skipped where nothing is cached yet.
	$(BIN)/python -m lab prepare
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit tests/integration

test-long: setup-tests  ## the tests that take too long for `make test`: long streams, faults, kills
	$(BIN)/pytest tests/long

bench: bench-nodes bench-scaling  ## all benchmarks (about 20 min); build/bench

bench-scaling: setup  ## compare scaling rules by replay, without a cluster (about 10 min); build/bench, and pages in build/bench/report
	nice $(BIN)/python -m tests.benchmarks.scaling --seeds 20

bench-nodes: setup  ## validate_gpu_nodes on up to 20,000 nodes of a real apiserver; build/bench
	$(BIN)/python -m tests.benchmarks.bench_gpu_nodes

clean: lab-down  ## end the lab, and remove what was built here
	rm -rf build .venv
