# make test       everything that must hold before a commit, in about 15 minutes on 2 cores
# make test-long  the same with more seeds, and every fuzz target for a while
# make build      the static binary, in bin/adit
# make deb        a Debian package, in bin/
# make image      a container image (an OCI archive), in bin/
# make man        the manual page, in bin/adit.8
# make bench      benchmarks, the tunnel beside strongSwan's among them (root)
# make demo       two networks joined before your eyes (root; without it in one process)
# make clean      what the above left behind

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 60s
TESTFLAGS ?=
# Without paths in them, clones in different folders share the build cache.
export GOFLAGS ?= -buildvcs=false -trimpath

# The labs measure loss under load: they run by themselves, after everything else.
# `make check` vets.
# Argument: the time limit of a package.
define tests
go test -race -vet=off -timeout $(1) $(TESTFLAGS) $$(go list ./... | grep -v '^adit/interop') || rc=$$?; \
scripts/interop.sh -timeout $(1) $(TESTFLAGS) || rc=$$?;
endef

.PHONY: test test-long check setup build deb image man bench demo clean

test: setup check
	@rm -rf interop/out
	@rc=0; $(call tests,20m) \
	scripts/results.sh; exit $$rc

test-long: setup check
	@rm -rf interop/out
	@export ADIT_LONG=1; rc=0; $(call tests,120m) \
	scripts/results.sh; \
	scripts/fuzz.sh $(FUZZTIME) || rc=$$?; exit $$rc

# Peers and tools are installed where we may; elsewhere the tests that need root say
# that they are skipped.
setup:
	@if [ "$$(id -u)" = 0 ]; then scripts/setup.sh; \
	else echo 'not root: no packages are installed, tests that need namespaces are skipped'; fi

# Without cgo, as the program is built: the tests need those packages anyway.
check:
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	if [ -n "$$bad" ]; then echo "gofmt these: $$bad" >&2; exit 1; fi
	CGO_ENABLED=0 go vet ./...
	CGO_ENABLED=0 go run $(STATICCHECK) ./...
	@scripts/govulncheck.sh

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X adit.Version=$(VERSION)' -o bin/adit ./cmd/adit

deb:
	@mkdir -p bin
	@scripts/deb.sh bin

image:
	@mkdir -p bin
	@scripts/image.sh bin

man:
	@mkdir -p bin
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) go run -ldflags '-X adit.Version=$(VERSION)' ./cmd/adit man >bin/adit.8
	@echo bin/adit.8

bench: setup
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./interop/...
	go test -run '^$$' -bench . -benchmem $$(go list ./... | grep -v '/interop')

demo:
	go run ./cmd/adit demo

clean:
	rm -rf bin interop/out
	go clean -testcache
