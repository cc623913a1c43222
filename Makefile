.PHONY: help build test test-plain race fuzz bench bench-peers bench-carriers bench-stock bench-scale bench-kernel bench-plots lint interop demo cross cover

FUZZTIME ?= 20s
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

build: ## one static binary, ./gateway
	CGO_ENABLED=0 go build -trimpath -o gateway ./cmd/gateway

demo: ## the whole way in one process, with no server of your own
	go run ./cmd/gateway demo

test: ## all tests that need no privilege and no installed package
	go test ./...

race: ## the same with the race detector
	go test -race ./...

# The packages with sockets or a stack in them, as the others cannot tell the difference; without what waits for timeouts.
test-plain: ## tests with batches, segmentation and receive offload switched off everywhere
	go test -tags plain -skip "^TestIPsecFailures$$" ./stack ./internal/... ./cmd/gateway

cover: ## coverage of the protocol rooms, at least 85 %
	@for room in ./ppp ./tunnel/l2tp; do \
	  go test -cover $$room | awk '{ print } { for (i = 1; i < NF; i++) if ($$i == "coverage:") { sub("%", "", $$(i+1)); seen = 1; if ($$(i+1) < 85) low = 1 } } END { exit low || !seen }' || exit 1; done

fuzz: ## each fuzz target for FUZZTIME
	@for dir in $$(go list -f '{{.Dir}}' ./...); do \
	  for target in $$(grep -ho 'func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | cut -d' ' -f2); do \
	    echo "$$target ($$dir)"; (cd $$dir && go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .) || exit 1; done; done

bench: ## benchmarks of each layer
	go test -run '^$$' -bench . -benchmem ./...

bench-peers: ## the program beside a peer and a limit, with the goals of docs/performance.md; BENCH=-quick for two minutes (Linux)
	go -C bench/peers vet ./...
	go -C bench/peers test ./...
	go run ./bench/cmd/benchpeers $(BENCH)

bench-carriers: ## the same over L2TP/IPsec, PPTP, MPPE and MPPC: three quarters of an hour
	$(MAKE) bench-peers BENCH="-carrier l2tp-ipsec,l2tp-ipsec-gcm,pptp,l2tp-mppe,l2tp-mppc,l2tp-mppc-text $(BENCH)"

bench-stock: ## twenty runs with socket buffers as on a machine that nobody has tuned, none of which may stall or be unfair
	go run ./bench/cmd/benchpeers -stock $(BENCH)

bench-scale: ## how the program's cost grows with tunnels, connections and streams
	go run ./bench/cmd/scale $(BENCH)

bench-kernel: ## beside the stock client of Linux, in an emulated machine (root, Debian)
	bench/kernelclient/run

bench-plots: ## draw docs/throughput.svg and docs/cpu.svg from JSON=FILE, which BENCH="-json FILE" of the others has written
	go -C bench/plots vet ./...
	go -C bench/plots test ./...
	go -C bench/plots run . -json $(abspath $(JSON)) -out $(CURDIR)/docs

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags interop ./interop
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags interop ./interop

cross: ## build for every system that is supported
	@for target in linux/amd64 linux/arm64 darwin/arm64 windows/amd64; do \
	  echo $$target; CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build -o /dev/null ./cmd/gateway || exit 1; done

interop: ## tests against real servers; root, Debian (it starts and stops the lab by itself)
	go test -tags interop -count=1 -parallel 6 -timeout 30m -v ./interop
