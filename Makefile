SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# --- contract: gen/ and its checks -------------------------------------------
.PHONY: generate contract-check contract-accept

generate: ## Write gen/ from openapi/, schemas/ds/, queries/ and migrations/
	go generate .

contract-check: ## Check the contract: gen/ up to date, lint, examples, fixtures, no breaking change
	go run ./internal/contractgen check

contract-accept: ## Make the present contract the one that later changes are compared with
	go run ./internal/contractgen accept
# --- end of contract ---------------------------------------------------------
