# The targets are explained in CONTRIBUTING.md; `make demo` and `make test` are the README's.

GO      ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
SEEDS   ?= 1000
FUZZ    ?= 30s
KILLS   ?= 300

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build install demo test ceph slow check lint bench sim fuzz endure packages clean

build: bin/mallee

.PHONY: bin/mallee
bin/mallee:
	$(GO) build -ldflags "-X mallee/euca.Version=$(VERSION)" -o $@ ./cmd/mallee

# The program and its euca-commands, for all users as root and for oneself otherwise.
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)

install: bin/mallee
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 bin/mallee $(DESTDIR)$(PREFIX)/bin/mallee
	$(DESTDIR)$(PREFIX)/bin/mallee install-commands $(DESTDIR)$(PREFIX)/bin

demo:
	test/demo.sh

# All tests but the long simulations and fuzzing: the rooms', then the black box on the built program.
test: bin/mallee
	test/packages.sh
	$(GO) test -timeout 20m ./...
	cd test && MALLEE=$(CURDIR)/bin/mallee $(GO) test -timeout 30m ./...

# Disks in Ceph: a small cluster is brought up for them, and taken down again. CEPH is its folder.
CEPH ?= /tmp/mallee-ceph-$(shell id -u)

ceph: bin/mallee
	test/packages.sh ceph
	test/ceph.sh up $(CEPH)
	export MALLEE_CEPH_CONF=$(CEPH)/ceph.conf MALLEE=$(CURDIR)/bin/mallee; \
	  $(GO) test -count 1 -timeout 20m ./block/rbd && (cd test && $(GO) test -run TestCeph -count 1 -timeout 20m .); \
	  code=$$?; test/ceph.sh down $(CEPH); exit $$code

# What takes many minutes: Debian is built twice, and booted.
slow: bin/mallee
	MALLEE_SLOW=1 $(GO) test -run TestBuildIsRepeatable/debian-12 -count 1 -timeout 3h ./image
	cd test && MALLEE_SLOW=1 MALLEE=$(CURDIR)/bin/mallee $(GO) test -run TestDebian -count 1 -timeout 3h .

# What a change should pass before each commit; about a minute once built.
check: lint
	$(GO) test -short ./...

lint: .tools/staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	cd test && $(GO) vet ./...
	.tools/staticcheck ./...
	cd test && ../.tools/staticcheck ./...

.tools/staticcheck:
	GOBIN=$(CURDIR)/.tools $(GO) install $(STATICCHECK)

bench: bin/mallee
	test/packages.sh
	cd test && MALLEE=$(CURDIR)/bin/mallee $(GO) run ./bench

sim:
	$(GO) test ./sim -run TestSeeds -count 1 -timeout 0 -seeds $(SEEDS)

# Every fuzz target of every room, FUZZ long each.
fuzz:
	@for dir in $$($(GO) list -f '{{.Dir}}' ./...); do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "== $$dir $$f"; (cd $$dir && $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) .) || exit 1; \
	  done; \
	done

# Guests that write while QEMU, mallee and both are killed, so many times; MALLEE_SEED repeats a run.
endure: bin/mallee
	test/packages.sh
	cd test && MALLEE_KILLS=$(KILLS) MALLEE=$(CURDIR)/bin/mallee $(GO) test -run TestEndure -count 1 -timeout 0 -v .

packages:
	test/packages.sh

clean:
	rm -rf bin .tools
