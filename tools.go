//go:build generate

// Package tools pins the code generators in go.mod, so that every clone runs
// the same ones.
package tools

import (
	_ "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen"
	_ "github.com/sqlc-dev/sqlc/cmd/sqlc"
)

// contractgen bundles openapi/ and schemas/ds/ into gen/openapi, runs
// oapi-codegen (gen/api, gen/event, gen/ds) and sqlc (gen/db) on what it made,
// and writes what they cannot.
//
//go:generate go run ./internal/contractgen generate
