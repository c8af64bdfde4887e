#!/bin/sh
# Generates the .pb.go files from the .proto files of this folder. It needs protoc (Debian: protobuf-compiler); the two
# plugins come from the module proxy, protoc-gen-go at the version of the protobuf module in go.mod.
set -eu
cd "$(dirname "$0")/../../.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN=$bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PATH=$bin:$PATH protoc --go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative api/link/v1/*.proto
