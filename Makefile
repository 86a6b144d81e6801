# Every task a person does. `make help` lists them; each makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# ruff reads no setup.cfg, so its settings are here.
STYLE := --line-length 100 --target-version py310
RULES := --select E,F,W,I,B,UP,SIM,C4,RUF --ignore SIM118,RUF001,RUF002,RUF003

# pip alone would compile on one core.  What does not compile is not ours to import.
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(1) \
  && { $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true; }
# Python keeps what it compiled, also where the environment says not to: each command that tests
# start would compile every module again.
export PYTHONDONTWRITEBYTECODE :=

# The CUDA version of the driver, for what needs a GPU.
CUDA ?= $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(VENV)/python: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'minigpt2 needs Python 3.10 or newer; say which with PYTHON=...'; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run: $(VENV)/python
	@echo 'installing into $(VENV) ...'
	@$(call install,-e '.[plot]')
	@touch $@

# What tests need includes what a run needs.
$(VENV)/dev: $(VENV)/python
	@echo 'installing into $(VENV), with the tools for tests ...'
	@$(call install,-e '.[dev]')
	@touch $(VENV)/run $@

$(VENV)/parity: $(VENV)/dev
	@echo 'installing the references, PyTorch, transformers and trl ...'
	@$(call install,-e '.[parity]')
	@touch $@

$(VENV)/cuda: $(VENV)/dev
	@test -n "$(CUDA)" || \
	  { echo 'nvidia-smi finds no GPU; where there is one, name its CUDA version: CUDA=12 or CUDA=13'; exit 2; }
	@echo 'installing CuPy for CUDA $(CUDA) ...'
	@$(call install,-e '.[cuda$(CUDA)]')
	@touch $@

$(VENV)/mutation: $(VENV)/dev
	@echo 'installing the tool that spoils lines ...'
	@$(call install,-e '.[mutation]')
	@touch $@

$(VENV)/book: $(VENV)/dev
	@echo 'installing what lays out the pages of the book ...'
	@$(call install,-e '.[book]')
	@touch $@

$(VENV)/nvrtc: $(VENV)/dev
	@echo 'installing the compiler of kernels for GPUs ...'
	@$(call install,-e '.[nvrtc]')
	@touch $@

$(VENV)/fuzz: $(VENV)/dev
	@echo 'installing Atheris ...'
	@$(call install,-e '.[fuzz]') || \
	  echo 'there is no Atheris for this machine: inputs are made without it'
	@touch $@

train: $(VENV)/run ## tune the small base, and show its answers before and after; continues a run that was stopped
	@$(BIN)/minigpt2 train --config weights/tiny/tune.yaml --resume $(if $(OUT),--out $(OUT))

prove-train: $(VENV)/dev ## make train, and fail unless it reaches its goals
	@rm -rf runs/proof
	@$(MAKE) --no-print-directory train OUT=runs/proof
	@$(BIN)/python -m tests.train_goals runs/proof

align: $(VENV)/run ## align the small base: reward model, DPO, PPO, GRPO, and a reward that is hacked; continues
	@$(BIN)/minigpt2 align $(if $(OUT),--out $(OUT))

prove-align: $(VENV)/dev ## make align, and fail unless it reaches its goals
	@rm -rf runs/proof-align
	@$(MAKE) --no-print-directory align OUT=runs/proof-align
	@$(BIN)/python -m tests.align_goals runs/proof-align

test: check ## check, and run the tests, but for the longest
	@$(BIN)/python -m pytest -n 2 -m 'not long'

test-long: $(VENV)/dev ## run the longest tests, of kernels in 16 bits and of the benchmarks
	@$(BIN)/python -m pytest -n 2 -m long

# Warnings are errors also in the commands that the tests start.  One seed is one order, with one
# worker or two.
SHUFFLED = PYTHONWARNINGS=error $(BIN)/python -W error -m pytest -m 'not long' \
  --random-order-bucket=global --random-order-seed

test-shuffled: $(VENV)/dev ## run the tests in random order, three times with one worker and with two (SEED=)
	@for round in 1 2 3; do \
	  seed=$(or $(SEED),$$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')); \
	  for workers in 0 2; do \
	    echo "order $$seed, $$workers workers besides"; \
	    $(SHUFFLED)=$$seed -n $$workers || { echo "again: make test-shuffled SEED=$$seed"; exit 1; }; \
	  done; \
	done

cover: $(VENV)/dev ## count the branches that the tests take: 95 % of them at least
	@mkdir -p build/coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n 2 -m 'not long'
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/dev ## format, lint and types
	@$(BIN)/ruff format $(STYLE) --check .
	@$(BIN)/ruff check $(STYLE) $(RULES) .
	@$(BIN)/mypy

torture: $(VENV)/dev ## kill runs at hundreds of moments, and cut the power at every call: they end with the same bits
	@$(BIN)/python -m tests.torture
	@$(BIN)/python -m tests.durability

check-inputs: $(VENV)/dev ## run every command on malformed and odd inputs: one line, or the right result
	@$(BIN)/python -m tests.inputs

fuzz: $(VENV)/fuzz ## feed damaged and hostile files to each reader of files for MINUTES=10 (READERS="data weights")
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(READERS)

gradcheck: $(VENV)/dev ## check every gradient against two numerical derivatives, and plant bugs
	@$(BIN)/python -m tests.gradcheck

check-kernels: $(VENV)/nvrtc ## compile every kernel for seven kinds of GPU: no warning, no spill, none larger
	@$(BIN)/python -m tests.kernels.gate

test-gpu: $(VENV)/cuda ## run the tests of the kernels and of --device on this machine's GPU
	@$(BIN)/python -m pytest --device cuda tests/device/test_fused.py tests/device/test_products.py \
	  tests/device/test_graph.py tests/device/test_captured.py tests/device/test_decoding.py \
	  tests/commands/test_device.py

check-races: $(VENV)/dev ## run large launches in the emulator, and check every access
	@$(BIN)/python -m tests.kernels.races

.PHONY: mutate
mutate: $(VENV)/mutation ## spoil every line of ops, data and training in turn (FILES=): tests must notice
	@$(BIN)/python -m tests.mutation $(FILES)

mutate-kernels: $(VENV)/dev ## spoil every barrier and bound of the kernels in turn: tests must notice
	@$(BIN)/python -m tests.kernels.mutate

predict-kernels: $(VENV)/dev ## predict the kernels' times on A100 and H100, by a roofline
	@$(BIN)/python -m tests.kernels.roofline

cover-kernels: $(VENV)/dev ## show which lines of the kernels the tests run
	@$(BIN)/python -m tests.kernels.coverage

parity: $(VENV)/parity ## compare every number with transformers and trl on PyTorch
	@$(BIN)/python -m tests.parity

parity-large: $(VENV)/parity ## compare logits and loss of a full-size Large, with memory and time
	@$(BIN)/python -m tests.parity.large

bench-decode: $(VENV)/parity ## time decoding, next to transformers and to bare matrix products
	@$(BIN)/python -m tests.benchmarks.decode

bench-peers: $(VENV)/parity ## time training, decoding and loading next to PyTorch, in turns (DATA="a.json b.json")
	@mkdir -p runs
	@$(BIN)/python -m tests.benchmarks.peers $(if $(DATA),--data $(DATA)) --large --json runs/peers.json
	@$(BIN)/python -m tests.benchmarks.decode --json runs/decode.json
	@$(BIN)/python -m tests.parity.large --model gpt2

bench-align: $(VENV)/parity ## time steps of DPO and of a reward model next to trl's, in turns (DATA=pairs.json)
	@mkdir -p runs
	@$(BIN)/python -m tests.benchmarks.pairs $(if $(DATA),--data $(DATA)) --json runs/pairs.json

bench-gpu: $(VENV)/cuda ## time training and decoding on this machine's GPU, next to PyTorch where it is installed (SHORT=1, JOBS=, DATA=)
	@mkdir -p runs
	@$(BIN)/python -m tests.benchmarks.gpu $(if $(SHORT),--short) $(if $(DATA),--data $(DATA)) \
	  $(if $(JOBS),--jobs $(JOBS)) --json runs/gpu.json
	@$(BIN)/python -m tests.benchmarks.gpu.decode --json runs/gpu-decode.json

profile-gpu: $(VENV)/cuda ## time each kernel of a step on this machine's GPU, next to its floor (JOBS=, DATA=); needs PyTorch
	@mkdir -p runs
	@$(BIN)/python -m tests.benchmarks.gpu.profile $(JOBS) $(if $(DATA),--data $(DATA)) \
	  --json runs/profile.json

bench-cost: $(VENV)/dev ## time a step against length and batch size, with a fit
	@$(BIN)/python -m tests.benchmarks.cost

bench-memory: $(VENV)/dev ## measure memory and time of a step of full-size Large, next to what plan says
	@$(BIN)/python -m tests.benchmarks.memory

bench-checkpoints: $(VENV)/dev ## time steps with and without a checkpoint being written, and resume it (MODEL=)
	@$(BIN)/python -m tests.benchmarks.checkpoints $(if $(MODEL),--model $(MODEL))

bench-busy: $(VENV)/dev ## time generation and tuning beside a busy process, which must not slow them 2.5 times
	@$(BIN)/python -m tests.benchmarks.busy

bench: $(VENV)/dev ## time the parts of a step, and compare them with what the machine can do
	@$(BIN)/python -m tests.benchmarks.step

book: $(VENV)/book ## write the book as pages, to read in a browser: build/book/index.html
	@$(BIN)/python -m book

check-book: $(VENV)/book ## write the book, and follow every link
	@$(BIN)/python -m pytest tests/book -m "long or not long"

pretrain: $(VENV)/dev ## make the small base again from its seed (about half an hour on two cores)
	@$(BIN)/minigpt2 pretrain

weights: $(VENV)/run ## fetch official weights: make weights MODEL=gpt2-large
	@$(BIN)/minigpt2 download $(or $(MODEL),gpt2)

clean: ## remove the environment and caches; runs and weights stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help train prove-train align prove-align test test-long test-shuffled cover check torture check-inputs fuzz check-kernels test-gpu check-races mutate-kernels predict-kernels cover-kernels gradcheck parity parity-large bench-decode bench-peers bench-align bench-gpu profile-gpu bench-memory bench-checkpoints bench-cost bench book check-book pretrain weights clean
