package pg

import (
	"errors"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// Outage says whether an error is the database's, and not of what it was asked:
// it was not reached, has lost the connection, or refuses for now, as with a
// full disk. The same statement may succeed a moment later.
func Outage(err error) bool {
	var (
		connect *pgconn.ConnectError
		network net.Error
		refused *pgconn.PgError
	)
	if errors.As(err, &refused) {
		switch refused.Code[:2] {
		case "08", "40", "53", "55", "57", "58": // connection, rollback, resources, locks, operator, system
			return true
		}
		return false
	}
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, puddle.ErrClosedPool) || pgconn.SafeToRetry(err)
}
