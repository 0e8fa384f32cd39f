// Package server answers the generated interface by asking the rooms.
//
// A request passes the door (door.go) before it reaches an answer: its trace,
// its route, whether there is room for it, its body, its caller, its fit to the
// contract, in this order. The
// answers have one file per tag of the contract.
package server

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/openapi"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Server has an answer for each operation of the contract.
type Server struct {
	Pool    *pgxpool.Pool
	Log     *runlog.Appender
	Watch   *runlog.Watch
	Streams *stream.Handler
	Tools   Tools
	// Registry keeps specs and releases.
	Registry *registry.Registry
	// Admission bounds what runs and owners may bring; nil bounds nothing.
	Admission *Admission
	Version   string // of the binary, for health
	// Draining, when it is closed, ends what waits for something to happen.
	Draining <-chan struct{}
}

var _ api.StrictServerInterface = (*Server)(nil)

// Config is how long the API waits. Zero values mean the defaults.
type Config struct {
	BodyTimeout   time.Duration // for the whole body to arrive; 10 s
	AnswerTimeout time.Duration // for an answer other than a stream to be made; 30 s
	WriteTimeout  time.Duration // for an answer other than a stream to be taken by the client; 30 s
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.BodyTimeout, 10 * time.Second},
		{&c.AnswerTimeout, 30 * time.Second},
		{&c.WriteTimeout, 30 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	return c
}

// Validate reports a setting that cannot work.
func (c Config) Validate() error {
	if c.BodyTimeout < 0 || c.AnswerTimeout < 0 || c.WriteTimeout < 0 {
		return errors.New("API listener: a timeout is negative")
	}
	return nil
}

// Deps are what the API is made of.
type Deps struct {
	Answers api.StrictServerInterface // a *Server
	Auth    *auth.Verifier
	// Admission refuses work when the service is behind; nil refuses nothing.
	Admission *Admission
	Logger    *slog.Logger
	Metrics   *telemetry.Metrics
}

// New makes the handler of the API listener. It compiles every schema of the
// contract once and fails when one does not compile.
func New(c Config, d Deps) (http.Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	contract, err := compileContract(openapi.Runtime)
	if err != nil {
		return nil, err
	}
	door := &door{
		config: c.withDefaults(), auth: d.Auth, admission: d.Admission, log: d.Logger, contract: contract,
		requests: d.Metrics.Counter(telemetry.HTTPRequests),
		seconds:  d.Metrics.Seconds(telemetry.HTTPSeconds),
		refusals: d.Metrics.Counter(telemetry.AuthRefusals),
	}
	api.HandlerWithOptions(
		api.NewStrictHandlerWithOptions(d.Answers, nil, api.StrictHTTPServerOptions{
			RequestErrorHandlerFunc:  door.unfit,
			ResponseErrorHandlerFunc: door.fail,
		}),
		api.StdHTTPServerOptions{BaseRouter: &door.routes, ErrorHandlerFunc: door.unfit},
	)
	return door, nil
}
