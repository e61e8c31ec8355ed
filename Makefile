# demo-multiplexer. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Podman's client library wants gpgme and graph drivers unless told otherwise.
PODMAN_TAGS := remote containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper
PODMAN_USERS := github.com/boss/demo-multiplexer/(agent|agent/podman|cmd/agent|cmd/dev)
GOLANGCI_VERSION := v2.15.0
GO := deploy/setup/go
export CGO_ENABLED ?= 0

BIN := build/bin
PROGRAMS := scheduler agent democtl dev
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/boss/demo-multiplexer/internal/version.stamped=$(VERSION)
FUZZ_TIME ?= 30s

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start a real cluster on this machine and lease a shop from it (root)
	@deploy/demo/run

.PHONY: demo-down
demo-down: ## Remove what 'make demo' started
	@deploy/demo/run down

.PHONY: dev
dev: ## One process for people who integrate the API: no root, no services, built-in demo page
	@deploy/setup/deps go
	@$(MAKE) $(BIN)/dev
	@exec $(BIN)/dev

.PHONY: infra-up infra-logs infra-down
infra-up: ## Start only Valkey and a Caddy, for development (root)
	@deploy/demo/infra up
infra-logs: ## Follow the logs of 'make infra-up'
	@deploy/demo/infra logs
infra-down: ## Stop and remove what 'make infra-up' started
	@deploy/demo/infra down

.PHONY: deps
deps: ## Install what building, testing and the lab need from Debian's packages (root)
	@deploy/setup/deps go lab

.PHONY: build
build: $(addprefix $(BIN)/,$(PROGRAMS) lab-forward) ## Build all programs into build/bin

# Always asked: Go's build cache knows best what changed.
.PHONY: FORCE
$(BIN)/lab-forward: FORCE
	@$(GO) build -o $@ ./deploy/lab/forward
$(BIN)/%: FORCE
	@$(GO) build -tags '$(PODMAN_TAGS)' -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

.PHONY: test
test: ## All tests: unit, race, architecture, replay, cluster, and the lab on real parts (root)
	@deploy/setup/deps go lab
	@$(MAKE) test-unit test-integration test-lab

.PHONY: test-unit
test-unit: ## Unit, race, architecture, state machine and in-process cluster tests
	@echo "== go test -race"
	@CGO_ENABLED=1 $(GO) test -race $$($(GO) list -tags '$(PODMAN_TAGS)' ./... | grep -vxE '$(PODMAN_USERS)')
	@echo "== go test of what links Podman's client library, which takes the race detector minutes to build"
	@$(GO) test -tags '$(PODMAN_TAGS)' $$($(GO) list -tags '$(PODMAN_TAGS)' ./... | grep -xE '$(PODMAN_USERS)')

.PHONY: test-integration
test-integration: ## Adapters against a real Caddy and a real Valkey on loopback
	@echo "== go test against a real Caddy and Valkey"
	@deploy/setup/with-services $(GO) test -count=1 -tags 'integration' ./scheduler/edge/... ./scheduler/session/...

.PHONY: test-lab
test-lab: build images ## The whole product in a lab of six hosts (root)
	@deploy/demo/labtest

.PHONY: images
images: ## Build the demo images into the cache (root)
	@images/build tiny
	@images/build wordpress

.PHONY: check
check: vet lint ## What guards the code besides tests: format, vet, linters, generated files
	@test -z "$$($(GO)fmt -l .)" || { $(GO)fmt -l .; echo "check: run gofmt on the files above"; exit 1; }

.PHONY: vet
vet:
	@$(GO) vet -tags '$(PODMAN_TAGS) lab integration' ./...

.PHONY: lint
lint: build/tools/golangci-lint-$(GOLANGCI_VERSION) ## Run the linters
	@$< run ./...
	@shellcheck deploy/demo/{cluster,run,labtest,infra,bench} deploy/setup/{deps,go,with-services,packaged} deploy/lab/lab images/build .ci/run

build/tools/golangci-lint-$(GOLANGCI_VERSION):
	@echo "== building golangci-lint $(GOLANGCI_VERSION) (once)"
	@GOBIN=$(CURDIR)/build/tools GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv build/tools/golangci-lint $@

.PHONY: fuzz
fuzz: ## Fuzz every decoder, FUZZ_TIME each (default 30s)
	@$(GO) list -tags '$(PODMAN_TAGS)' ./... | while read -r pkg; do \
	  for f in $$($(GO) test -tags '$(PODMAN_TAGS)' -list '^Fuzz' "$$pkg" | grep ^Fuzz || true); do \
	    echo "== $$pkg $$f"; $(GO) test -tags '$(PODMAN_TAGS)' -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ_TIME) "$$pkg"; done; done

.PHONY: sim
sim: ## Many seeds of the in-process cluster under faults, in virtual time (SIM_SEEDS, default 20)
	@SIM_SEEDS=$${SIM_SEEDS:-20} $(GO) test -count=1 -timeout 30m -run '^TestSim' -v ./internal/simtest/...

.PHONY: bench
bench: build ## Acquire latency and throughput beside floors from the same parts; writes build/results/bench.json (root)
	@deploy/demo/bench

.PHONY: clean
clean: ## Remove what was built here; the cache of the lab stays
	@rm -rf build
