# The commands of this project. `make help` lists them.

GO        ?= go
TOOL       = $(GO) tool -modfile=tools/go.mod
FUZZTIME  ?= 10m
BENCH     ?= .
COUNT     ?= 6
PEERS     ?=
SOAK      ?= 30m
# The systems that the binary is vetted for besides the one it is built on.
SYSTEMS    = darwin freebsd windows

.PHONY: help build test test-fast test-32 check check-format check-vet check-staticcheck check-lint check-dead check-tidy fmt fuzz bench bench-peers soak

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./sallyport
	CGO_ENABLED=0 $(GO) build -trimpath -o sallyport ./cmd/sallyport

test: ## every test, race detector on; brings in the Debian packages that the tests use
	tools/packages
	$(GO) test -race -timeout 12m ./...

test-fast: ## the tests that need nothing but Go
	$(GO) test -short -timeout 1m ./...

test-32: ## the event loops and the limits where a word has 32 bits (the processor must run programs for 386)
	CGO_ENABLED=0 GOARCH=386 $(GO) test -short -timeout 1m ./internal/engine ./internal/limits

check: check-format check-vet check-staticcheck check-lint check-dead check-tidy ## formatting, vet, linters, dead code, tidy modules (-k: all the faults)

check-format:
	@unformatted=$$($(TOOL) gofumpt -l .) && if [ -n "$$unformatted" ]; then \
		printf 'not formatted (make fmt mends it):\n%s\n' "$$unformatted"; exit 1; fi

check-vet:
	$(GO) vet ./...
	@set -e; for system in $(SYSTEMS); do \
		echo "GOOS=$$system $(GO) vet ./..."; CGO_ENABLED=0 GOOS=$$system $(GO) vet ./...; done

check-staticcheck:
	$(TOOL) staticcheck ./...

check-lint:
	$(TOOL) golangci-lint run ./...
	$(TOOL) golangci-lint run --tests=false --enable-only errcheck,forbidigo,noctx ./...
	@! grep -rnE 'strings\.[A-Z][A-Za-z]*\([A-Za-z.]*err[A-Za-z]*\.Error\(\)' --include='*.go' --exclude='*_test.go' . || \
		{ echo "ask with errors.Is or errors.AsType, not by an error's words"; exit 1; }

check-dead:
	@dead=$$($(TOOL) deadcode -test ./...) && if [ -n "$$dead" ]; then \
		printf 'never called:\n%s\n' "$$dead"; exit 1; fi

check-tidy:
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff

fmt: ## format every Go file
	$(TOOL) gofumpt -w .

fuzz: ## every fuzz target, one after the other, FUZZTIME each (10m)
	GO='$(GO)' FUZZTIME='$(FUZZTIME)' tools/fuzz

bench: ## the benchmarks, COUNT times each, in the form that benchstat reads
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

bench-peers: ## this proxy beside others, on loopback; takes long (PEERS='-only plain -rounds 3': fewer, PEERS=-help: how)
	tools/packages
	$(GO) run ./bench/peers $(PEERS)

soak: ## relays of every shape for SOAK (30m), as root's ordinary neighbour without a pipe budget, race detector on; every byte and end compared
	$(GO) run ./bench/peers -soak $(SOAK) -race -user nobody -hog
