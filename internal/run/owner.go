package run

import (
	"strconv"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Owner says who a run belongs to, as runs.owner has it: a guest scope alone
// when there is one, because all guests share one user; otherwise the user.
type Owner string

// Everybody stands for an operator who sees every run.
const Everybody Owner = "*"

// OwnerOf makes an owner; guest wins over user. Neither gives "".
func OwnerOf(userID *int64, guestScope string) Owner {
	switch {
	case guestScope != "":
		return Owner("guest:" + guestScope)
	case userID != nil:
		return Owner("user:" + strconv.FormatInt(*userID, 10))
	}
	return ""
}

// Owns says whether the owner may see the run.
func (o Owner) Owns(r db.Run) bool {
	return o != "" && (o == Everybody || string(o) == r.Owner)
}

// filter is the owner as a query's argument: nil for everybody.
func (o Owner) filter() *string {
	if o == Everybody {
		return nil
	}
	s := string(o)
	return &s
}
