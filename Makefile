# Pinfold's commands. Each calls the set-up first; `make help` lists them.
# Everything longer than a line is in qemu/ (`cargo qemu help`).

export PATH := /usr/bin:$(PATH)
export RUSTC := /usr/bin/rustc
export PINFOLD_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pinfold
# Clones share one target directory, so what is fresh has to be told by content: cargo's unstable checksum freshness.
export CARGO_UNSTABLE_CHECKSUM_FRESHNESS := true
export RUSTC_BOOTSTRAP := 1
CARGO_QEMU := CARGO_TARGET_DIR=$(PINFOLD_CACHE)/target /usr/bin/cargo qemu

.DEFAULT_GOAL := help
.PHONY: help setup packages build run demo test storm check coverage fuzz long gup-bench series gdb clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup: packages ## install packages (as root), or say which are missing; patch the kernel
	@$(CARGO_QEMU) source

packages:
	@qemu/setup.sh

build: packages ## everything that runs, into out/
	@$(CARGO_QEMU) build

run: packages ## Linux on Pinfold; ends in a shell of the host
	@$(CARGO_QEMU) run

demo: packages ## a protected guest and attacks on it, without a keyboard
	@$(CARGO_QEMU) demo

test: packages ## every test; ends with "N passed, N failed"
	@$(CARGO_QEMU) test

storm: packages ## random calls under EL2's oracle: SECONDS=60 SEED=<number>; ICOUNT=1 to have it again, THREADS=1 to let CPUs race
	@$(CARGO_QEMU) storm $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(ICOUNT),--icount) $(if $(THREADS),--threads)

check: packages ## format, lints, x86_64 tests, docs, unsafe budget
	@$(CARGO_QEMU) check

coverage: packages ## which lines of the core the tests run; fails below 95 %
	@$(CARGO_QEMU) coverage

fuzz: packages ## look for inputs that break the core; SECONDS=60
	@$(CARGO_QEMU) fuzz $(if $(SECONDS),--seconds $(SECONDS))

long: packages ## what takes hours: all states, long random runs and fuzzing; HOURS=2
	@$(CARGO_QEMU) long $(if $(HOURS),--hours $(HOURS))

gup-bench: packages ## what exclusive pins cost, in instructions; fails above the budget
	@$(CARGO_QEMU) gup-bench

series: packages ## every patch alone: style, builds, warnings; takes half an hour
	@$(CARGO_QEMU) series

gdb: packages ## like run, but waits for gdb, which it starts
	@$(CARGO_QEMU) gdb

clean: ## remove out/ and target/; the cache stays (its place is printed)
	@rm -rf out target
	@echo "kept: $(PINFOLD_CACHE)"
