package predict

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// catalogDefault is the compiled_id of a signature's own defaults.
const catalogDefault = "catalog_default"

// Caller calls signatures through one model.
type Caller struct {
	Model model.Model
	// Now stamps receipts.
	Now func() time.Time

	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	tokens  *prometheus.CounterVec
}

// NewCaller makes a caller.
func NewCaller(m model.Model, metrics *telemetry.Metrics) *Caller {
	return &Caller{
		Model: m, Now: crash.Now,
		calls:   metrics.Counter(telemetry.PredictCalls),
		seconds: metrics.Seconds(telemetry.PredictSeconds),
		tokens:  metrics.Counter(telemetry.PredictTokens),
	}
}

// ID names a call within its run. The same ID is the same call, with the same
// receipt id.
type ID struct {
	RunKey uuid.UUID
	RunID  string
	CallID string
}

// receiptID is pred_ and the first 24 hex digits of the digest of the call's
// identity.
func (id ID) receiptID() (string, error) {
	digest, err := canon.HashJSON(map[string]any{
		"format": "openagents.ds.predict_identity", "format_version": 1, "run_id": id.RunID, "call_id": id.CallID,
	})
	if err != nil {
		return "", err
	}
	return "pred_" + digest[len("sha256:"):][:24], nil
}

// Call is a prepared call: its input is valid and its prompt rendered.
type Call struct {
	id      ID
	sig     ds.Contract
	request model.Request
	receipt ds.PredictReceiptV1
	timeout time.Duration
}

// Option changes how a call is rendered.
type Option func(*ds.SignatureContractV1PromptIR)

// SystemPrompt takes the place of the signature's prompt. The receipt's hash of
// what was rendered covers it; its prompt hash is still the signature's.
func SystemPrompt(text string) Option {
	return func(prompt *ds.SignatureContractV1PromptIR) {
		prompt.Blocks = prompt.Blocks[:1] // a prompt has one at the least
		prompt.Blocks[0].Text = text
	}
}

// Prepare validates the input and renders the prompt. The signature's output is
// {text, tool_calls}.
func Prepare[In any](id ID, sig ds.Signature[In, ds.RespondV1Output], in In, options ...Option) (*Call, error) {
	input, err := canon.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("predict %s: input: %w", sig.ID, err)
	}
	if err := validate(sig.Contract, input); err != nil {
		return nil, fmt.Errorf("predict %s: input: %w", sig.ID, err)
	}
	var contract ds.SignatureContractV1
	if err := json.Unmarshal(sig.Document, &contract); err != nil {
		return nil, fmt.Errorf("predict %s: %w", sig.ID, err)
	}
	for _, change := range options {
		change(&contract.PromptIr)
	}
	shown, err := render(contract.PromptIr, input)
	if err != nil {
		return nil, fmt.Errorf("predict %s: %w", sig.ID, err)
	}
	rendered, err := shown.hash()
	if err != nil {
		return nil, fmt.Errorf("predict %s: %w", sig.ID, err)
	}
	receiptID, err := id.receiptID()
	if err != nil {
		return nil, err
	}
	return &Call{
		id: id, sig: sig.Contract, timeout: time.Duration(contract.Defaults.TimeoutMs) * time.Millisecond,
		request: model.Request{
			Messages: shown.messages, Tools: shown.tools, MaxOutputTokens: int(contract.Defaults.MaxOutputTokens), IdempotencyKey: receiptID,
		},
		receipt: ds.PredictReceiptV1{
			Format: "openagents.ds.predict_receipt", FormatVersion: 1,
			ReceiptID: receiptID, RunID: id.RunID, CallID: id.CallID,
			SignatureID: sig.ID, StrategyID: sig.StrategyID, CompiledID: catalogDefault,
			Hashes: ds.PredictReceiptV1Hashes{
				SchemaHash: sig.SchemaHash, PromptHash: sig.PromptHash, ProgramHash: sig.ProgramHash,
				ParamsHash: sig.ParamsHash, InputHash: canon.Hash(input), RenderedPromptHash: rendered,
			},
		},
	}, nil
}

// Run asks the model and hands what it says to emit. The outcome has a receipt
// whether or not the call succeeded; its error is in Err.
func (c *Caller) Run(ctx context.Context, call *Call, emit func(model.Event) error) Outcome {
	started, clock := c.Now(), time.Now()
	timed, stop := context.WithTimeout(ctx, call.timeout)
	defer stop()
	result, err := c.Model.Stream(timed, call.request, emit)
	o := call.seal(ctx, c.Model.Info(), result, err, started, time.Since(clock))
	c.observe(o)
	return o
}

// Lost seals the receipt of a call whose executor was lost while the model
// worked: nobody knows how it ended, and it may have been billed.
func (c *Caller) Lost(ctx context.Context, call *Call) Outcome {
	now := c.Now()
	result := model.Result{MaybeBilled: true, FinishReason: model.FinishError}
	o := call.seal(ctx, c.Model.Info(), result, errExecutorLost, now, 0)
	c.observe(o)
	return o
}

var errExecutorLost = errors.New("the executor was lost during the call")

func (c *Caller) observe(o Outcome) {
	r := o.Receipt
	c.calls.WithLabelValues(r.SignatureID, string(r.Status)).Inc()
	c.seconds.WithLabelValues(r.SignatureID).Observe(float64(r.Timing.LatencyMs) / 1000)
	c.tokens.WithLabelValues(r.Provider).Add(float64(r.Usage.TotalTokens))
}
