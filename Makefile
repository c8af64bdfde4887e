# Targets of the repository. Go, git and make suffice for all but test-real, race, check and bench.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -eu -c

export CGO_ENABLED ?= 0
step  := .ci/step
cache := .cache
tool  := go tool -modfile=tools/go.mod
# The version is the commit, which Go stamps into the binary. Without one (an unpacked archive) there is nothing to stamp.
stamp := $(shell git rev-parse -q --verify HEAD >/dev/null 2>&1 && echo auto || echo false)
RUN      ?= .
CASE     ?= proxy feed
FUZZTIME ?= 10m
COUNT    ?= 10
SOAK     ?= 10m
# Tests that take many minutes: make soak runs them, or make testssl.
LONG := ^(TestLargeApplies|TestMillionKeys|TestMillionCredentials|TestManyConnections|TestIdleConnectionMemory|TestTestssl)$$
# Those of them that the race detector does not bear.
LEAN := ^(TestManyConnections|TestIdleConnectionMemory)$$

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build ./bin/hansa (the first time compiles every module: a minute or two)
	@$(step) "download modules" go mod download
	@$(step) "build ./bin/hansa" go build -trimpath -buildvcs=$(stamp) -o bin/hansa ./cmd/hansa

cross: ## build for the other systems, to see that it builds
	@for on in windows/amd64 darwin/arm64 linux/arm64; do \
		$(step) "build for $$on" env GOOS=$${on%/*} GOARCH=$${on#*/} go build -o $(cache)/cross/ ./cmd/hansa; done

run: build ## build, then run a control plane and a gateway with a sample in one process
	@./bin/hansa dev

test: ## run the tests that need nothing but Go
	@$(step) "test" go run ./test/tally -o $(cache)/results/test.json -- -skip '$(LONG)' ./...

race: export CGO_ENABLED = 1
race: ## run the tests with the race detector (needs a C compiler)
	@$(step) "race" go run ./test/tally -- -race -skip '$(LONG)' ./...

test-real: export CGO_ENABLED = 1
test-real: export HANSA_REAL = 1
test-real: ## install compilers and servers, run every test with the race detector and against the real servers
	@$(step) "install servers" test/real/install.sh
	@$(step) "test-real" go run ./test/tally -o $(cache)/results/test-real.json -- -race -skip '$(LONG)' -timeout 20m ./...

testssl: export HANSA_REAL = 1
testssl: ## have testssl.sh look for weaknesses of TLS
	@test/real/install.sh
	@go test ./test/suites -run '^TestTestssl$$' -v -count=1

script: ## run the scripts of test/script; RUN=name picks one
	@go test ./test/script -run '/$(RUN)' -v

fuzz: ## fuzz every target for FUZZTIME (10m) each; RUN=name picks one
	@test/fuzz.sh $(FUZZTIME) $(RUN:.=)

bench: ## measure against nginx, HAProxy and Envoy: CASE="proxy feed"
	@go run ./bench $(CASE)

soak: export CGO_ENABLED = 1
soak: export HANSA_SLOW = 1
soak: ## run every test COUNT (10) times with the race detector, to find those that fail sometimes
	@$(step) "soak" go run ./test/tally -- -race -skip '$(LEAN)' -count=$(COUNT) -timeout 2h ./...
	@$(step) "soak without the race detector" go run ./test/tally -- -run '$(LEAN)' -count=1 ./internal/gateway/...

soak-traffic: export HANSA_SOAK = $(SOAK)
soak-traffic: ## change everything about a gateway under mixed traffic for SOAK (10m): nothing may fail
	@$(step) "soak-traffic" go test ./test/soak -run '^TestSoak$$' -v -count=1 -timeout 2h

docs: ## generate the reference pages and indexes
	@go generate -skip generate.sh ./...
	@go test ./internal/cli ./internal/control/problem -run Reference -update
	@go test ./internal/archtest -run 'TestRepository/(adr|metricsdoc)' -update

lint: ## check form, habits, module files and generated files
	@$(step) "download modules" go mod download
	@$(step) "gofumpt" sh -c 'bad=$$($(tool) gofumpt -l .); [ -z "$$bad" ] || { echo "run make fix:" $$bad; exit 1; }'
	@$(step) "go vet" go vet ./...
	@$(step) "staticcheck" $(tool) staticcheck ./...
	@$(step) "go fix" sh -c 'go fix -omitzero=false -diff ./... || { echo "run make fix"; exit 1; }'
	@$(step) "go mod tidy" go mod tidy -diff
	@$(step) "generated files" sh -c 'mkdir -p $(cache); git diff >$(cache)/before; $(MAKE) -s docs; git diff | cmp $(cache)/before - || { echo "run make fix"; exit 1; }'

initcost:
	@$(step) "init cost" test/initcost.sh bin/hansa 50 5000

fix: ## mend what lint can mend
	go fix -omitzero=false ./...
	$(tool) gofumpt -w .
	go mod tidy
	$(MAKE) docs

check: ## lint, test and test-real: what must hold before a merge
	@mkdir -p $(cache) && rm -rf $(cache)/steps $(cache)/results
	@STEPS=$(cache)/steps $(MAKE) --no-print-directory lint build initcost test test-real; \
	status=$$?; echo; cat $(cache)/steps; \
	[ $$status -eq 0 ] || exit $$status; \
	go run ./test/tally -sum $(cache)/results/test.json $(cache)/results/test-real.json

.PHONY: help build cross run test race test-real testssl script fuzz bench soak soak-traffic docs lint initcost fix check
