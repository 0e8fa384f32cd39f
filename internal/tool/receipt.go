package tool

import (
	"cmp"
	"errors"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// end is what the end of a task writes.
type end struct {
	receipt ds.ToolReceiptV1
	row     db.ToolTaskFinishParams
}

// conclude makes a task's receipt and the last state of its row. The same task
// and outcome have the same receipt.
func conclude(t db.ToolTask, o Outcome, epoch int64) (end, error) {
	from, err := expected(o.State)
	if err != nil {
		return end{}, err
	}
	if (o.State == Succeeded) != (o.Err == nil) {
		return end{}, errors.New("exactly the calls that succeed have no error")
	}
	key, err := idempotencyKey(t.RunID, t.ToolCallID)
	if err != nil {
		return end{}, err
	}
	attempts := t.Attempts
	if o.Attempts > 0 {
		attempts = max(attempts, 1) - 1 + int32(o.Attempts)
	}
	r := ds.ToolReceiptV1{
		Format: "openagents.ds.tool_receipt", FormatVersion: 1, ReceiptID: key, RunID: t.RunID, ToolCallID: t.ToolCallID,
		ToolName: t.ToolName, Provider: clip(cmp.Or(o.Provider, deref(t.Provider), "none"), maxProvider),
		PrimaryProvider: optional(clip(o.PrimaryProvider, maxProvider)), FallbackReason: optional(clip(o.FallbackReason, maxClass)),
		State: ds.ToolReceiptV1State(o.State), SettlementBoundary: ds.ToolReceiptV1SettlementBoundary(t.SettlementBoundary),
		IdempotencyKey: &t.IdempotencyKey, CorrelationID: optional(clip(redact.Text(runlog.Storable(o.CorrelationID)), maxForeign)),
		Attempts: attempts, ParamsHash: t.ParamsHash, OutputHash: optional(o.OutputHash),
		EvaluationHash: t.EvaluationHash, ReasonCode: reason(t, o), ReasonCodesVersion: ds.ReasonCodesVersion,
		ApprovalID: t.ApprovalID, LatencyMs: max(0, o.Latency.Milliseconds()), Traceparent: t.Traceparent, RequestID: t.RequestID,
	}
	if t.Decision != nil {
		decision := ds.ToolReceiptV1Decision(*t.Decision)
		r.Decision = &decision
	}
	row := db.ToolTaskFinishParams{
		RunKey: t.RunKey, ToolCallID: t.ToolCallID, Expected: from, Attempts: t.Attempts, LeaseEpoch: epoch,
		State: o.State, TotalAttempts: attempts, Output: o.Output, OutputHash: r.OutputHash, OutputTruncated: o.Truncated,
		Provider: &r.Provider, FallbackUsed: o.PrimaryProvider != "", CorrelationID: r.CorrelationID,
		LatencyMs: &r.LatencyMs, ResultFrameID: optional(o.FrameID),
	}
	if o.Err != nil {
		r.ErrorClass = optional(clip(cmp.Or(o.Err.Class, ClassFailed), maxClass))
		row.ErrorClass, row.ErrorMessage = r.ErrorClass, optional(message(o.Err))
	}
	raw, hash, err := canonHash(r)
	if err != nil {
		return end{}, err
	}
	row.Receipt, row.ReceiptHash = raw, &hash
	return end{r, row}, nil
}

// reason is the code of the taxonomy that explains a call's end: the failure's,
// or else the one of the decision that let it be made.
func reason(t db.ToolTask, o Outcome) string {
	if o.Err != nil && o.Err.ReasonCode != "" {
		return o.Err.ReasonCode
	}
	if o.State == Succeeded || o.State == Canceled {
		return cmp.Or(deref(t.ReasonCode), "policy_allowed.default")
	}
	if deref(t.Decision) == "denied" {
		return deref(t.ReasonCode)
	}
	return reasonProvider
}
