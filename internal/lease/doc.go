// Package lease gives one process at a time the right to write to a run.
//
// A lease is a row with an owner, an epoch and an expiry, by the database's
// clock. It is taken only when it is free or expired; every change of hands
// raises the epoch, in the lease and in the head of the run's log, so that no
// write of an earlier holder can follow. A holder renews at a third of the TTL
// and stops itself when its trust window, two thirds of the TTL counted from
// before the last renewal was sent, ends: well before anybody may take over.
// A release expires the row and keeps it, so that the epoch only grows.
package lease
