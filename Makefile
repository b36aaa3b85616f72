# The two commands a newcomer needs are `make demo` and `make test`; README.md says what the others are for.
SHELL := /bin/bash
.DELETE_ON_ERROR:
# The OpenStack client packages install a program that is also called swift: take the one that lies beside the compiler.
SWIFTC := $(shell command -v swiftc || ls /opt/swift/usr/bin/swiftc 2>/dev/null)
SWIFT := $(dir $(SWIFTC))swift
BIN := .build/bin
LAB := Tests/Lab

.PHONY: help demo demo-monitor test unit-test fuzz kvm-test cloud-test test-boot-matrix bench build monitor service install-packages lint clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: build ## a real OpenStack boots a server on our monitor: console, ping, metrics, deletion, left-overs
	@$(LAB)/cloud-demo $(BIN)

demo-monitor: monitor ## our monitor alone boots Linux on a real KVM: console, disk, shutdown
	@$(LAB)/demo $(BIN)/apus-vmm

test: ## every test: units, guests under KVM, a real cloud, charts
	@$(LAB)/all-tests

unit-test: install-packages ## tests that need neither KVM nor a cloud
	$(SWIFT) build --build-tests
	@$(LAB)/unit-tests

fuzz: ## libFuzzer on every parser and device of the monitor; FUZZ_SECONDS=600 for longer, TARGETS="ahci …" for some
	@$(LAB)/fuzz $(TARGETS)

kvm-test: monitor ## guests on our monitor, under a real /dev/kvm
	APUS_PARTS=monitor $(SWIFT) build --build-tests
	@$(LAB)/kvm-tests

cloud-test: build ## servers in a real OpenStack on our monitor; TESTS="test_x …" runs some of them
	@$(LAB)/cloud-test-run $(BIN) $(TESTS)

test-boot-matrix: monitor ## Debian through each firmware, on each board and disk; `make test` runs a part of them
	@$(LAB)/boot-matrix $(BIN)/apus-vmm .build/debian all

bench: monitor ## start, memory and boot beside QEMU, on the instruction-counting clock
	@$(LAB)/bench $(BIN)

build: monitor service ## the three programs in .build/bin

# Without a dynamic loader: it would cost milliseconds and megabytes for each guest. Still at a random address.
STATIC_PIE := --disable-local-rpath -Xswiftc -static-executable -Xswiftc -use-ld=lld -Xswiftc -Xclang-linker -Xswiftc -static-pie -Xlinker --pack-dyn-relocs=relr
monitor: install-packages
	@[ -n "$(SWIFTC)" ] || { echo "no Swift toolchain: install Swift 6.3 and put it into PATH" >&2; exit 1; }
	APUS_PARTS=monitor $(SWIFT) build -c release $(STATIC_PIE) --product apus-vmm --scratch-path .build/monitor
	@mkdir -p $(BIN) && install -m 755 .build/monitor/release/apus-vmm $(BIN)/

# Debug, because the tests share its build: `make service CONFIGURATION=release` for a host that is to serve.
CONFIGURATION ?= debug
STATIC := $(if $(filter release,$(CONFIGURATION)),--static-swift-stdlib)
service: install-packages
	$(SWIFT) build -c $(CONFIGURATION) $(STATIC) --product nova-compute
	$(SWIFT) build -c $(CONFIGURATION) $(STATIC) --product apusctl
	@mkdir -p $(BIN) && install -m 755 .build/$(CONFIGURATION)/nova-compute .build/$(CONFIGURATION)/apusctl $(BIN)/

install-packages:
	@$(LAB)/install librabbitmq-dev libssl-dev pkg-config

lint: ## formatting and naming, as checked in
	$(SWIFT) format lint --strict --recursive Sources Tests Package.swift

clean:
	rm -rf .build
