package predict

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Outcome is how a call ended, with its sealed receipt.
type Outcome struct {
	Text string
	// ToolCalls are the tools that the model asks for, in its order. Names and ids
	// are the model's own.
	ToolCalls    []ds.MessageV1ToolCall
	FinishReason string
	Receipt      ds.PredictReceiptV1
	// Err is why the call did not succeed, or nil.
	Err error

	id ID
}

// seal completes the receipt.
func (call *Call) seal(ctx context.Context, info model.Info, res model.Result, err error, started time.Time, took time.Duration) Outcome {
	r := call.receipt
	r.Provider, r.RequestedModel = info.Provider, info.Model
	r.ServedModel = optional(res.ServedModel)
	r.ProviderRequestID = optional(res.ProviderRequestID)
	r.FinishReason = optional(string(res.FinishReason))
	r.MaybeBilled = res.MaybeBilled
	attempts := int32(res.Attempts)
	r.Attempts = &attempts
	r.Usage = ds.UsageV1{
		InputTokens: res.Usage.InputTokens, OutputTokens: res.Usage.OutputTokens,
		TotalTokens: res.Usage.InputTokens + res.Usage.OutputTokens, ModelCalls: 1,
	}
	started, took = started.UTC().Truncate(time.Millisecond), took.Truncate(time.Millisecond)
	r.Timing = ds.PredictReceiptV1Timing{
		StartedAt: started, CompletedAt: started.Add(took), LatencyMs: took.Milliseconds(),
	}
	trace := telemetry.TraceFrom(ctx)
	r.Traceparent, r.RequestID = optional(trace.Parent), optional(trace.RequestID)
	r.Status = "succeeded"
	var calls []ds.MessageV1ToolCall
	if err != nil {
		status, class := classify(err)
		r.Status, r.ErrorClass = ds.PredictReceiptV1Status(status), &class
	} else {
		var digest string
		if calls, digest, err = output(res); err == nil {
			r.Hashes.OutputHash = &digest
		} else {
			class := string(model.Protocol)
			r.Status, r.ErrorClass = "failed", &class
			err = &model.Error{Class: model.Protocol, Retryable: true, MaybeBilled: res.MaybeBilled, Message: "the answer cannot be written down: " + err.Error()}
		}
	}
	return Outcome{Text: res.Text, ToolCalls: calls, FinishReason: string(res.FinishReason), Receipt: r, Err: err, id: call.id}
}

// maxCalls is how many tools an answer may ask for, as the signature's output says.
const maxCalls = 128

// output gives the tool calls of a result, and the digest of the signature's
// output. Text that is not Unicode has no canonical form, so it cannot be proved.
func output(res model.Result) (calls []ds.MessageV1ToolCall, digest string, err error) {
	if len(res.ToolCalls) > maxCalls {
		return nil, "", fmt.Errorf("it asks for %d tools at once", len(res.ToolCalls))
	}
	for _, c := range res.ToolCalls {
		arguments := map[string]any{}
		d := json.NewDecoder(bytes.NewReader(c.Arguments))
		d.UseNumber()
		if err := d.Decode(&arguments); err != nil {
			return nil, "", fmt.Errorf("the arguments of a call of %s: %w", c.Name, err)
		}
		calls = append(calls, ds.MessageV1ToolCall{ToolCallID: c.ID, ToolName: c.Name, Arguments: arguments})
	}
	digest, err = canon.HashJSON(ds.RespondV1Output{Text: res.Text, ToolCalls: calls})
	return calls, digest, err
}

// classify gives a receipt's status and error class.
func classify(err error) (status, class string) {
	var m *model.Error
	switch {
	case errors.Is(err, errExecutorLost):
		return "failed", "executor_lost"
	case errors.As(err, &m) && m.Class == model.Canceled && errors.Is(err, context.DeadlineExceeded):
		return "timed_out", string(model.Timeout)
	case errors.As(err, &m) && m.Class == model.Canceled, errors.Is(err, context.Canceled):
		return "canceled", string(model.Canceled)
	case errors.As(err, &m) && m.Class == model.Timeout:
		return "timed_out", string(m.Class)
	case errors.As(err, &m):
		return "failed", string(m.Class)
	default:
		return "failed", "internal"
	}
}

// Canceled marks an outcome whose call succeeded too late: its run was to stop.
func (o Outcome) Canceled() Outcome {
	class := string(model.Canceled)
	o.Receipt.Status, o.Receipt.ErrorClass = "canceled", &class
	return o
}

// Change is the outcome as facts of the run: the event and the stored receipt.
func (o Outcome) Change(epoch int64) (runlog.Change, error) {
	r := o.Receipt
	sealed, err := canon.Marshal(r)
	if err != nil {
		return runlog.Change{}, err
	}
	served := r.RequestedModel
	if r.ServedModel != nil {
		served = *r.ServedModel
	}
	return runlog.Change{
		Events: []event.Event{event.PredictFinishedV1{
			ReceiptID: r.ReceiptID, SignatureID: r.SignatureID, StrategyID: r.StrategyID, CompiledID: r.CompiledID,
			Status: event.PredictFinishedV1Status(r.Status), ErrorClass: r.ErrorClass, Provider: r.Provider,
			Model: served, MaybeBilled: r.MaybeBilled, Usage: r.Usage,
		}},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.DsPredictReceiptInsert(context.Background(), db.DsPredictReceiptInsertParams{
				ReceiptID: r.ReceiptID, RunKey: o.id.RunKey, RunID: r.RunID, CallID: r.CallID, SignatureID: r.SignatureID,
				CompiledID: r.CompiledID, StrategyID: r.StrategyID, Status: string(r.Status), LeaseEpoch: epoch,
				Receipt: sealed, ReceiptHash: canon.Hash(sealed),
			})
		}},
	}, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
