package server

import (
	"context"
	"net/http"
	"strconv"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
)

// admitted is what the door knows of a request that it let in.
type admitted struct {
	caller auth.Caller
	http10 bool   // the client speaks HTTP/1.0
	leave  func() // gives up the request's places among those at work
	// detach is called by an answer that goes on after its handler.
	detach func() (ended func(bytes int64))
}

type admittedKey struct{}

func withAdmitted(ctx context.Context, a admitted) context.Context {
	return context.WithValue(ctx, admittedKey{}, a)
}

func admittedOf(ctx context.Context) admitted {
	a, _ := ctx.Value(admittedKey{}).(admitted)
	return a
}

// callerOf is who was let in. A context that did not pass the door has nobody,
// who owns nothing.
func callerOf(ctx context.Context) auth.Caller { return admittedOf(ctx).caller }

// ownerOf is whose runs the caller may touch. An operator who names no
// principal may touch everybody's.
func ownerOf(ctx context.Context) (run.Owner, error) {
	c := callerOf(ctx)
	owner, err := c.Owner()
	if err != nil {
		if c.Scope == auth.Operator {
			return run.Everybody, nil
		}
		return "", err
	}
	if owner.GuestScope != "" {
		return run.OwnerOf(nil, owner.GuestScope), nil
	}
	return run.OwnerOf(&owner.UserID, ""), nil
}

// claimedOwner is whose requests a header says it is one of, before anybody has
// checked that; "" when it names nobody.
func claimedOwner(h http.Header) run.Owner {
	if guest := h.Get(auth.GuestHeader); guest != "" {
		return run.OwnerOf(nil, guest)
	}
	id, err := strconv.ParseInt(h.Get(auth.UserHeader), 10, 64)
	if err != nil {
		return ""
	}
	return run.OwnerOf(&id, "")
}

// runOf finds a run of the caller's.
func runOf(ctx context.Context, q db.DBTX, runID string) (db.Run, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return db.Run{}, err
	}
	r, err := run.Get(ctx, q, owner, runID)
	if err != nil {
		return r, err
	}
	if err := inThread(ctx, r); err != nil {
		return db.Run{}, err
	}
	return r, nil
}

// mayRead says whether a run is one that runOf would find.
func mayRead(ctx context.Context, r db.Run) bool {
	owner, err := ownerOf(ctx)
	return err == nil && owner.Owns(r) && inThread(ctx, r) == nil
}

func inThread(ctx context.Context, r db.Run) error {
	if c := callerOf(ctx).Claims; c.ThreadID != "" && c.ThreadID != r.ThreadID {
		return claimMismatch("thread_id", "the run's thread")
	}
	return nil
}

// startsFor refuses a body that starts a run for somebody else than the token
// names, or for another run or thread. A token that names nobody leaves it to
// the body, which it signs.
func startsFor(c auth.Caller, body api.StartRunRequest) error {
	const how = "sign the same as the claim and send it as the header, or send neither"
	named := c.UserID != nil || c.GuestScope != ""
	switch {
	case named && !same(c.UserID, body.UserID):
		return principalMismatch("userId", "user_id, "+auth.UserHeader+": "+how)
	case named && c.GuestScope != deref(body.GuestScope):
		return principalMismatch("guestScope", "guest_scope, "+auth.GuestHeader+": "+how)
	case c.Claims.RunID != "" && c.Claims.RunID != body.RunID:
		return claimMismatch("run_id", "the body's runId")
	case c.Claims.ThreadID != "" && c.Claims.ThreadID != body.ThreadID:
		return claimMismatch("thread_id", "the body's threadId")
	}
	return nil
}

// touches refuses what is of another run or thread than the token names.
func touches(c auth.Caller, runID, threadID string) error {
	switch {
	case c.Claims.RunID != "" && c.Claims.RunID != runID:
		return claimMismatch("run_id", "the run")
	case c.Claims.ThreadID != "" && threadID != "" && c.Claims.ThreadID != threadID:
		return claimMismatch("thread_id", "the run's thread")
	}
	return nil
}

func principalMismatch(field, how string) error {
	return fault.New(api.Forbidden, "body /%s is not the principal that the token names (%s)", field, how).
		With("reason", "principal_mismatch").With("pointer", "/"+field)
}

func claimMismatch(claim, where string) error {
	return fault.New(api.Forbidden, "claim %s must equal %s", claim, where).
		With("reason", string(auth.ClaimMismatch)).With("claim", claim)
}

func same(a, b *int64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// deref is what p points to, or the zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
