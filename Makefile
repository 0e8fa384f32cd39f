SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINARY  := bin/openagents-runtime

.PHONY: help build run chat test race check lint attacks approval-race fuzz bench bench-quick db clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

build: ## Build the binary into bin/
	go build -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o $(BINARY) ./cmd/openagents-runtime

run: build ## Run everything on this machine and show a first run; Ctrl-C stops it
	@exec $(BINARY) dev

chat: build ## Talk to the server that `make run` started
	@exec $(BINARY) chat

test: ## Run every test; installs what is missing when it may
	bash .ci/install
	go run ./internal/testrun ./...

race: ## Run every Go test under the race detector
	go run ./internal/testrun -race ./...

check: contract-check lint ## contract-check, vet and lint
	go vet ./...

lint: ## Lint the hand-written Go code
	go tool -modfile=openapi/tools.mod golangci-lint run

attacks: ## Send every attack to a running handler and print what refused it
	go test -count=1 -v -run 'TestA[0-9]' ./internal/contracttest | go run ./internal/contracttest/attacktable

approval-race: ## Decide approvals at the moment at which they expire: make approval-race PAIRS=10000
	APPROVAL_RACE_PAIRS=$(or $(PAIRS),10000) go test -count=1 -timeout 30m -v -run TestDecisionsRaceWithTheClock ./internal/approval

fuzz: ## Fuzz every operation longer: make fuzz REQUESTS=20000 SEED=1
	FUZZ_REQUESTS=$(or $(REQUESTS),20000) FUZZ_SEED=$(SEED) go test -count=1 -timeout 60m -v -run TestFuzz ./internal/contracttest

bench: build ## Measure against plain Postgres in the same run, and write docs/performance.md
	go run ./internal/bench -write

bench-quick: build ## The same, short, without writing anything
	go run ./internal/bench -quick

db: build ## Start the private Postgres alone and print how to reach it
	@exec $(BINARY) dev --database-only

clean: ## Remove what was built
	rm -rf bin

# --- crash gate ---------------------------------------------------------------
.PHONY: crash crash-quick crash-ci

crash: ## Hurt real processes for hours and add the counts to docs/reliability.md: make crash MINUTES=110 ITERATIONS=0
	go run ./internal/crashtest -minutes $(or $(MINUTES),110) -iterations $(or $(ITERATIONS),0) -write docs/reliability.md

crash-quick: ## Hurt real processes once with each fault, without writing anything
	go run ./internal/crashtest -minutes 15 -iterations 1 -ttl 2s

crash-ci: ## The same without the faults that take long
	go run ./internal/crashtest -minutes 8 -iterations 1 -ttl 2s -not '^(nobody|three|one that takes|connections.*silent|clock of one process wrong$$)|Postgres commits|who executes it|m?s slower|ms away|model is called'
# --- end of crash gate --------------------------------------------------------

# --- bounds -------------------------------------------------------------------
.PHONY: bounds bounds-quick

bounds: ## Time takeover, drain, cancel and an outage of Postgres, and write docs/bounds.md
	go run ./internal/bounds -write docs/bounds.md

bounds-quick: ## The same in half a minute at a TTL of 1 s, without writing anything
	go run ./internal/bounds -quick
# --- end of bounds ------------------------------------------------------------

# --- contract: gen/ and its checks -------------------------------------------
.PHONY: generate contract-check contract-accept

generate: ## Write gen/ from openapi/, schemas/ds/, queries/ and migrations/
	go generate .

contract-check: ## Check the contract: gen/ up to date, lint, examples, fixtures, no breaking change
	go run ./internal/contractgen check

contract-accept: ## Make the present contract the one that later changes are compared with
	go run ./internal/contractgen accept
# --- end of contract ---------------------------------------------------------

# --- mutation: tests that notice broken code ---------------------------------
.PHONY: mutation mutation-quick

mutation: ## Break the code on purpose, patch by patch; each must turn its test red
	go run ./internal/mutation $(PATCHES)

mutation-quick: ## The same with three patches
	go run ./internal/mutation -short
# --- end of mutation ---------------------------------------------------------
