# `make help` lists the targets.
GO  ?= go
OUT := bin

QEMU := qemu-system-x86_64=qemu-system-x86
GCC  := gcc=gcc gcc=libc6-dev
BUSYBOX := busybox=busybox-static

# Flags for the rack of qemu-run, e.g. make qemu-run RACK="--dkernels 4 --cores 1 --name other".
RACK ?= --dkernels 2
# Flags for the machine of boot and gdb, e.g. make boot BOOT="--smp 4 --mem 1G --machine q35".
BOOT ?= --smp 2 --mem 512M
# Program and arguments of run; flags for it, e.g. make run RUN="--strace" BIN=./prog.
BIN ?= /bin/busybox
ARGS ?=
RUN ?=
# Which kernel boot and gdb start.
KERNEL ?= dkernel

.PHONY: help build qemu-run run boot gdb test check unit boot-test long-test nr-mutations bench compat clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/dinos, bin/ckernel.elf, bin/dkernel.elf and bin/ktest.elf
	@mkdir -p $(OUT)
	$(GO) build -o $(OUT)/dinos ./cmd/dinos
	$(OUT)/dinos build ./cmd/ckernel $(OUT)/ckernel.elf
	$(OUT)/dinos build ./cmd/dkernel $(OUT)/dkernel.elf
	$(OUT)/dinos build ./cmd/ktest $(OUT)/ktest.elf

qemu-run: build ## start a rack in QEMU and give its prompt; the rack ends with it (RACK="--dkernels 4")
	@qemu/install.sh $(QEMU) $(BUSYBOX)
	$(OUT)/dinos up -i $(RACK)

run: ## run a static Linux program on the rack that is up, or on one of its own (BIN=./prog ARGS="...")
	@$(MAKE) -s --no-print-directory build
	@qemu/install.sh $(QEMU) $(BUSYBOX)
	@$(OUT)/dinos run $(RUN) $(BIN) $(ARGS)

boot: build ## boot one kernel alone in QEMU with its console here (BOOT="--smp 4", KERNEL=ckernel)
	@qemu/install.sh $(QEMU)
	$(OUT)/dinos boot $(BOOT) $(OUT)/$(KERNEL).elf

gdb: build ## start a paused kernel with gdb attached to it
	@qemu/install.sh $(QEMU) gdb=gdb
	$(OUT)/dinos gdb $(BOOT) $(OUT)/$(KERNEL).elf

test: check unit boot-test ## everything a change must pass

check: ## gofmt, go vet, import and source rules
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt: not formatted:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) test -count=1 .

unit: ## the tests of all packages, with the race detector
	@qemu/install.sh $(QEMU) $(GCC)
	CGO_ENABLED=1 DINOS_REQUIRE_QEMU=1 $(GO) test -race $$($(GO) list ./... | grep -v -e '^dinos$$' -e /boottest$$)

boot-test: ## boot kernels in QEMU and run the tests inside them
	@qemu/install.sh $(QEMU)
	DINOS_REQUIRE_QEMU=1 $(GO) test -count=1 -timeout 30m ./kernel/boottest

nr-mutations: ## check that the tests of nr catch deliberately broken variants of it
	$(GO) run ./nr/nrtest/mutate

bench: build ## start-up times, and the Go runtime beside Linux in the same QEMU (10 minutes)
	@qemu/install.sh $(QEMU)
	$(OUT)/dinos bench boot
	$(OUT)/dinos bench rt

compat: build ## run real static programs on dinos and on Linux and compare (COMPAT="-only '^busybox/'"); the first time gets and builds them
	@qemu/install.sh $(QEMU) $(GCC) musl-gcc=musl-tools make=make tclsh=tcl dpkg-source=dpkg-dev readelf=binutils
	$(GO) run ./qemu/compat/run $(COMPAT)

long-test: ## the long versions: soaks, exhaustive and crash tests (about half an hour)
	@qemu/install.sh $(QEMU) $(GCC)
	DINOS_LONG=1 DINOS_REQUIRE_QEMU=1 $(GO) test -count=1 -timeout 90m ./...

clean: ## remove what was built
	rm -rf $(OUT)
