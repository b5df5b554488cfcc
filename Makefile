.PHONY: demo test test-root test-soak test-programs clients lint fuzz bench soak generate image vulncheck postgres go

# The race detector needs a C compiler; without one the tests run without it.
race = $(shell [ "$$(go env CGO_ENABLED)" = 1 ] && echo -race)

demo: go postgres
	@go build -o bin/entrapg ./cmd/entrapg
	@exec bin/entrapg demo

test: go postgres
	@$(MAKE) --no-print-directory test-root
	@$(MAKE) --no-print-directory -j 2 test-soak test-programs

# The tests create and delete a hundred thousand files of PostgreSQL, which is faster in memory.
test-root test-soak test-programs: export TMPDIR := $(or $(TMPDIR),$(shell scripts/memory-dir.sh))

# With the race detector, a process sleeps for a second before it exits.
test-root test-soak test-programs: export GORACE := atexit_sleep_ms=0 $(GORACE)

test-root:
	go test $(race) -parallel 8 ./...

# This and test-programs wait most of the time, so they run at the same time.
test-soak:
	cd soak && go test $(race) ./...

test-programs:
	cd examples && go test -p 4 ./...
	cd benchmarks && go test ./...

# Clients in other languages log in to the emulator: make clients only="node java" for some of them.
clients: go postgres
	@go build -o bin/entrapg ./cmd/entrapg
	@clients/run $(only)

lint: go
	go mod verify
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd soak && go mod verify && go mod tidy -diff
	cd tools && go build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run --allow-parallel-runners ./...
	cd soak && ../bin/golangci-lint run --allow-parallel-runners ./...
	cd benchmarks && go mod tidy -diff && ../bin/golangci-lint run --allow-parallel-runners ./...
	cd examples && go mod tidy -diff && ../bin/golangci-lint run --allow-parallel-runners ./...
	cd examples/tools && go mod tidy -diff
	cd clients/go && go mod tidy -diff && ../../bin/golangci-lint run --allow-parallel-runners ./...

# Known vulnerabilities in code that the packages call. It needs https://vuln.go.dev.
vulncheck: go
	cd tools && go build -o ../bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	@set -e; for dir in . soak examples benchmarks; do echo "$$dir: govulncheck"; (cd $$dir && "$(CURDIR)/bin/govulncheck" ./...); done

# The command's reference, and the code of example sqlc by the tool in examples/tools.
generate: go
	go generate ./cmd/entrapg
	cd examples && go generate ./...

# A few seconds for each fuzz test: make fuzz time=1h for longer. The default counts inputs because a duration can fail
# with "context deadline exceeded" when it ends, before Go 1.27 (https://go.dev/issue/75804).
fuzz: time = 10000x
fuzz: go
	@set -e; for dir in . ./internal/claims ./internal/connstring ./internal/token ./internal/pgwire ./entrapgtest ./cmd/entrapg/internal/proxy/listener ./cmd/entrapg/internal/proxy/engine; do \
		names=$$(go test -list '^Fuzz' $$dir); \
		for name in $$(echo "$$names" | grep '^Fuzz'); do \
			echo "$$dir $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(time) -fuzzminimizetime 100x $$dir; \
		done; \
	done

# The container image, and the proxy in it.
image: go postgres
	docker build -t entrapg .
	ENTRAPG_TEST_IMAGE=entrapg go test -count=1 -run TestImage ./cmd/entrapg

# Two pools under load and random faults. It prints a report at the end.
soak: time = 30m
soak: go postgres
	@cd soak && go build -o ../bin/soak .
	@exec bin/soak -for $(time)

# Measures entrapg and the alternatives; writes benchmarks/results.* and docs/performance.*.
bench: go postgres
	cd benchmarks && go run .

go:
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }

postgres:
	@scripts/install-postgres.sh
