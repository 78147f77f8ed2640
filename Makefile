# The tasks of this project. .ci/run calls "make test".

.PHONY: build test check race fuzz interop chaos bench fmt docs deps

build:
	CGO_ENABLED=0 go build -trimpath -o balcony ./cmd/balcony

# Everything that must hold, from a clean checkout: installs the other servers and clients that tests start.
test: deps check race fuzz

# What needs no test run: formatting, vet, staticcheck, a tidy go.mod.
check:
	@test -z "$$(gofmt -s -l .)" || { echo "run make fmt:"; gofmt -s -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

# All tests with the race detector, the comparison of generated pages and the interop tests among them.
race:
	go test -race -timeout 10m ./...
	go test -count=1 ./xmpp/stream # what counts allocations and heap cannot run with the race detector
	go test -count=1 -run TestStrangers ./cmd/balcony

# Every fuzz target for FUZZTIME seconds each.
fuzz:
	.ci/fuzz

# Software that we did not write against the real server.
interop:
	go test -count=1 -v -run Interop ./...

# Connections cut and the server ended at random moments, until there was enough of it on each database. "go test ./cmd/balcony/chaos" is a short run.
chaos:
	go test -count=1 -timeout 60m -v -run TestChaos ./cmd/balcony/chaos -long

bench:
	go test -run '^$$' -bench . -benchmem ./...

fmt:
	gofmt -s -w .
	go mod tidy

# Writes the generated pages in docs.
docs:
	BALCONY_WRITE_DOCS=1 go test -count=1 -run 'TestReferencePage|TestGeneratedDocs' ./cmd/balcony/...

deps:
	.ci/deps
