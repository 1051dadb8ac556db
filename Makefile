# Every command that a contributor needs. `make help` lists them.

GO      ?= go
BIN     := bin
MODULES := . test samples/read-secret samples/go

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: build
build: ## build bin/podkey and the sample program
	@mkdir -p $(BIN)
	$(GO) build -trimpath -o $(BIN)/podkey ./cmd/podkey
	cd samples/read-secret && $(GO) build -trimpath -o ../../$(BIN)/read-secret .

.PHONY: demo
demo: build ## the whole story on this machine, in seconds
	$(BIN)/podkey demo --workload $(BIN)/read-secret

.PHONY: test
test: ## all tests that need no root and no network but modules
	$(GO) test -timeout 10m ./...
	cd test && $(GO) test -timeout 10m ./...

.PHONY: acceptance
acceptance: ## real az, Python and JavaScript SDKs; installs them; ARGS="-only login -version newest"
	cd test && $(GO) run ./acceptance $(ARGS)

# Those that replace the webhook or restart the server, one after the other, and
# the slowest client: half as long again.
E2E_MORE := TestProfiles|TestIdentityBinding|TestFetchedKeys|TestAzLoginIdentity

.PHONY: e2e e2e-all
e2e: ## a real Kubernetes, on this machine; root and Linux; builds it the first time; ARGS="-run Walkthrough -v"
e2e-all: ## the same and more: other configurations of the webhook and of the server, az in a pod; ARGS as above
e2e: SKIP := -skip '^($(E2E_MORE))$$'
e2e e2e-all:
	$(GO) test -tags e2e -count=1 ./internal/intercept
	cd test && $(GO) test -tags e2e -count=1 -timeout 60m ./lab
	cd test && $(GO) test -tags e2e -count=1 -timeout 60m -parallel 4 ./e2e $(SKIP) $(ARGS)

.PHONY: image
image: ## the container images for amd64 and arm64, as OCI archives: bin/podkey-image.tar and the sample's
	@mkdir -p $(BIN)
	$(GO) run ./tools/image -o $(BIN)/podkey-image.tar -ref $(IMAGE)
	$(GO) run ./tools/image -o $(BIN)/read-secret-image.tar -ref localhost/read-secret:dev -src samples/read-secret
IMAGE ?= localhost/podkey:dev

.PHONY: race
race: ## the main module's tests under the race detector
	$(GO) test -race -short -timeout 30m ./...

.PHONY: bench
bench: ## compare with a bare TLS handler, in one run; takes minutes
	cd test && $(GO) run ./bench
	@echo; echo "one request in the handler, without the network: time and allocations"
	$(GO) test -run '^$$' -bench Handler -benchmem ./internal/server | grep Benchmark
	@echo; echo "one admission, from the review's body to the answer's: time, 99th percentile (of all, and of the calmest 500 in a row) and allocations (budget: 1 ms at p99)"
	$(GO) test -run '^$$' -bench 'Mutate|Advise' -benchtime 3s -benchmem ./internal/admission | grep Benchmark

.PHONY: fuzz
fuzz: ## each parser's fuzz test for a few seconds
	@set -e; n=0; pkgs=$$($(GO) list -f '{{.ImportPath}}={{.Dir}}' ./...); for p in $$pkgs; do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $${p#*=}/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "fuzz $${p%%=*} $$f"; n=$$((n+1)); \
	    $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $${p%%=*} >$(FUZZLOG) 2>&1 </dev/null || { cat $(FUZZLOG); exit 1; }; \
	  done; done; rm -f $(FUZZLOG); echo "$$n fuzz tests"; test $$n -gt 0
FUZZTIME ?= 5s
FUZZLOG  := $(shell mktemp -u)

.PHONY: lint
lint: ## format, tidy modules, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted, run gofmt -w on:" >&2; echo "$$out" >&2; exit 1; fi
	@mkdir -p $(BIN) && $(GO) build -o $(BIN)/staticcheck honnef.co/go/tools/cmd/staticcheck
	@set -e; for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(GO) mod tidy -diff && $(GO) vet -tags e2e ./... && $(CURDIR)/$(BIN)/staticcheck -tags e2e ./...); done

.PHONY: clean
clean: ## remove what was built here
	rm -rf $(BIN)
