// Package migrations holds the database's schema, one file per change.
package migrations

import "embed"

// FS holds every migration, named <utc minute>_<what it does>.sql.
//
//go:embed *.sql
var FS embed.FS
