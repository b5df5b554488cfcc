.PHONY: demo test lint fuzz bench postgres go

# The race detector needs a C compiler; without one the tests run without it.
race = $(shell [ "$$(go env CGO_ENABLED)" = 1 ] && echo -race)

demo: go postgres
	@go build -o bin/entrapg ./cmd/entrapg
	@exec bin/entrapg demo

test: go postgres
	go test $(race) -parallel 8 ./...
	cd benchmarks && go test ./...

lint: go
	go mod verify
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd tools && go build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...
	cd benchmarks && go mod tidy -diff && ../bin/golangci-lint run ./...

# A few seconds for each fuzz test: make fuzz time=1h for longer.
time = 5s
fuzz: go
	go test -run '^$$' -fuzz '^FuzzDSN$$' -fuzztime $(time) .
	go test -run '^$$' -fuzz '^FuzzClaims$$' -fuzztime $(time) .

# Beside the alternatives; writes benchmarks/results.* and docs/performance.*.
bench: go postgres
	cd benchmarks && go run .

go:
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }

postgres:
	@scripts/install-postgres.sh
