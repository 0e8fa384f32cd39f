package main

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/go-playground/validator/v10"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/loop"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/model/builtin"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// config is what the environment says. `openagents-runtime config` prints it.
type config struct {
	Env             string        `env:"RUNTIME_ENV" envDefault:"production" validate:"oneof=production dev" help:"production, or dev: only dev runs without a secret, and only on loopback"`
	DatabaseURL     string        `env:"DATABASE_URL" help:"postgres:// URL of the database" secret:"true"`
	UpkeepURL       string        `env:"DATABASE_UPKEEP_URL" help:"the database as the owner of its tables, for the sweeps that fold and drop; empty for DATABASE_URL" secret:"true"`
	DatabaseConns   int           `env:"DATABASE_MAX_CONNS" envDefault:"20" validate:"min=4,max=1000" help:"connections of the pools together, the log's aside: a tenth, at least two, for upkeep (leases, sweeps, ticks), the rest in halves for serving and executing"`
	APIAddr         string        `env:"RUNTIME_API_ADDR" envDefault:"127.0.0.1:4000" validate:"host:port" help:"where the API listens"`
	OpsAddr         string        `env:"RUNTIME_OPS_ADDR" envDefault:"127.0.0.1:4001" validate:"host:port" help:"where /healthz, /readyz and /metrics listen"`
	Secret          string        `env:"RUNTIME_SIGNATURE_SECRET" help:"keyring of kid:secret pairs, comma separated; the first signs" secret:"true"`
	Audience        string        `env:"RUNTIME_AUDIENCE" envDefault:"openagents-runtime" validate:"required" help:"the aud claim that tokens must have"`
	MaxTokenLife    time.Duration `env:"RUNTIME_SIGNATURE_MAX_TTL" envDefault:"300s" validate:"min=1s,max=1h" help:"the longest life of a token"`
	Issuer          string        `env:"RUNTIME_IDENTITY_ISSUER" help:"issuer of identity tokens; they are required when it is set"`
	JWKSURL         string        `env:"RUNTIME_IDENTITY_JWKS_URL" help:"where the issuer publishes its keys"`
	IdentityAud     string        `env:"RUNTIME_IDENTITY_AUDIENCE" help:"the aud claim of identity tokens"`
	AllowedEmails   []string      `env:"RUNTIME_IDENTITY_EMAILS" help:"service accounts that may call, comma separated"`
	AllowedSubjects []string      `env:"RUNTIME_IDENTITY_SUBJECTS" help:"subjects that may call, comma separated"`
	LeaseTTL        time.Duration `env:"RUNTIME_LEASE_TTL" envDefault:"30s" validate:"min=900ms,max=10m" help:"how long a silent executor keeps a run"`
	MaxRuns         int           `env:"RUNTIME_MAX_RUNS" envDefault:"256" validate:"min=1,max=100000" help:"runs that this process drives at once"`
	Lanes           int           `env:"RUNTIME_LOG_LANES" envDefault:"2" validate:"min=1,max=8" help:"connections that append to the log"`
	DrainTimeout    time.Duration `env:"RUNTIME_DRAIN_TIMEOUT" envDefault:"20s" validate:"min=1s,max=10m" help:"how long a stop may take"`
	FoldAfter       time.Duration `env:"RUNTIME_FOLD_AFTER" envDefault:"10m" validate:"min=0,max=720h" help:"how long a run has ended at the least before its deltas are folded"`
	RetainDeltas    time.Duration `env:"RUNTIME_RETAIN_DELTAS" envDefault:"2160h" validate:"omitempty,min=48h" help:"how long after a run's end its stream can be resumed in the middle at the least; 0 for ever"`
	RetainEvents    time.Duration `env:"RUNTIME_RETAIN_EVENTS" envDefault:"0" validate:"omitempty,min=48h" help:"how long after a run's end its log is kept at the least; 0 for ever"`
	RetainEvals     time.Duration `env:"RUNTIME_RETAIN_EVALUATIONS" envDefault:"0" validate:"omitempty,min=1h" help:"how long after a run's end what policy decided for it from is kept at the least; 0 for as long as its log, and never shorter"`
	DevDir          string        `env:"RUNTIME_DEV_DIR" help:"where dev keeps its database and log; empty for the user's state folder"`
	LogLevel        string        `env:"RUNTIME_LOG_LEVEL" envDefault:"info" validate:"oneof=debug info warn error" help:"debug, info, warn or error"`

	MaxLosses        int64         `env:"RUNTIME_MAX_LOSSES" envDefault:"3" validate:"min=1,max=1000" help:"executors of a run that may be lost in a row without progress before it is failed"`
	MaxLostFor       time.Duration `env:"RUNTIME_MAX_LOST_FOR" envDefault:"1h" validate:"min=1s,max=720h" help:"how long a run's executors may be lost without progress, from the first to the second or a later one, before it is failed"`
	RestartDelay     time.Duration `env:"RUNTIME_RESTART_DELAY" envDefault:"500ms" validate:"min=10ms,max=10m" help:"how long a run that failed its session waits for the next one in the same process; each failure without progress doubles it"`
	MaxRestartDelay  time.Duration `env:"RUNTIME_MAX_RESTART_DELAY" envDefault:"30s" validate:"min=10ms,max=1h" help:"the longest such wait"`
	CheckpointSteps  int64         `env:"RUNTIME_CHECKPOINT_STEPS" envDefault:"8" validate:"min=1,max=1000" help:"steps that may follow a run's checkpoint before another is saved"`
	CheckpointEvents int64         `env:"RUNTIME_CHECKPOINT_EVENTS" envDefault:"1024" validate:"min=1,max=1000000" help:"events that may follow a run's checkpoint before the end of a step saves another"`
	LoopWindow       int           `env:"RUNTIME_LOOP_WINDOW" envDefault:"60" validate:"min=4,max=10000" help:"newest frames of a run in which loops are looked for; more than RUNTIME_LOOP_BREAKER"`
	LoopWarning      int           `env:"RUNTIME_LOOP_WARNING" envDefault:"10" validate:"min=1,max=10000" help:"frames in a loop at which the log gets a warning"`
	LoopCritical     int           `env:"RUNTIME_LOOP_CRITICAL" envDefault:"20" validate:"min=2,max=10000" help:"frames in a loop at which the run is ended; more than the warning"`
	LoopBreaker      int           `env:"RUNTIME_LOOP_BREAKER" envDefault:"30" validate:"min=3,max=10000" help:"frames of tools without anything new, in whatever order, at which the run is ended; more than the critical count"`
	LoopOff          []string      `env:"RUNTIME_LOOP_OFF" validate:"dive,oneof=known_poll_no_progress ping_pong generic_repeat" help:"detectors of loops that are not asked, comma separated: known_poll_no_progress, ping_pong, generic_repeat"`

	Tools      toolConfig
	Wallet     walletConfig
	MCP        mcpConfig
	ToolPolicy string `env:"RUNTIME_TOOL_POLICY" help:"file with the service's tool policy; empty for the built-in one"`
	Hooks      string `env:"RUNTIME_HOOKS" help:"file with hooks that are asked over HTTP: {\"hooks\": [{id, phase, url, priority, timeout}]}"`

	MaxWaitingFrames int           `env:"RUNTIME_MAX_WAITING_FRAMES" envDefault:"100" validate:"min=0,max=100000" help:"unanswered frames that a run may have before more are 429; 0 for no bound"`
	MaxRunsPerOwner  int           `env:"RUNTIME_MAX_RUNS_PER_OWNER" envDefault:"0" validate:"min=0,max=1000000" help:"runs of one owner that may be at work before more are 429; 0 for no bound"`
	MaxInFlight      int           `env:"RUNTIME_MAX_IN_FLIGHT" envDefault:"512" validate:"min=0,max=100000" help:"starts and frames that this process handles at once at the most before more are 503; 0 for no bound"`
	MaxBacklogWait   time.Duration `env:"RUNTIME_MAX_BACKLOG_WAIT" envDefault:"10s" validate:"min=0,max=1h" help:"how long runs may wait for an executor before starts and frames are 503; 0 for no bound"`

	ModelProvider  string        `env:"MODEL_PROVIDER" envDefault:"builtin" validate:"oneof=builtin openai" help:"builtin (rules, no key), or openai for any endpoint of its kind"`
	ModelBaseURL   string        `env:"MODEL_BASE_URL" validate:"required_if=ModelProvider openai" help:"such as https://openrouter.ai/api/v1"`
	ModelAPIKey    string        `env:"MODEL_API_KEY" help:"the endpoint's key" secret:"true"`
	ModelName      string        `env:"MODEL_NAME" validate:"required_if=ModelProvider openai" help:"the model to ask for"`
	ModelContext   int           `env:"MODEL_CONTEXT_TOKENS" validate:"min=0" help:"what the model can be shown, in tokens; 0 when not known"`
	ModelTimeout   time.Duration `env:"MODEL_TIMEOUT" envDefault:"5m" validate:"min=1s,max=1h" help:"the longest model call, retries included"`
	ModelFirst     time.Duration `env:"MODEL_FIRST_TOKEN_TIMEOUT" envDefault:"60s" validate:"min=100ms,max=1h" help:"the longest wait for the first token"`
	ModelSilence   time.Duration `env:"MODEL_TOKEN_TIMEOUT" envDefault:"30s" validate:"min=100ms,max=1h" help:"the longest silence between tokens"`
	ModelRetries   int           `env:"MODEL_MAX_RETRIES" envDefault:"2" validate:"min=0,max=10" help:"retries on 429, 5xx and lost connections before the first token"`
	ModelDelay     time.Duration `env:"MODEL_BUILTIN_DELAY" envDefault:"0s" validate:"min=0,max=10s" help:"pause of the builtin model between deltas, so that a person sees the text flow"`
	ModelNewBounds bool          `env:"MODEL_MAX_COMPLETION_TOKENS" help:"send max_completion_tokens instead of max_tokens, as OpenAI's newer models ask"`
}

// readConfig reads and checks the environment.
func readConfig() (config, error) {
	c, err := env.ParseAs[config]()
	if err != nil {
		return c, fmt.Errorf("environment: %w", unread(err))
	}
	return c, c.check()
}

// unread names the variables that could not be read, where the parser names
// fields of config.
func unread(err error) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	var lines []string
	for _, e := range all.Errors {
		var p env.ParseError
		if errors.As(e, &p) {
			for f := range settings(config{}) {
				if f.Name == p.Name {
					e = fmt.Errorf("%s: %w", f.Tag.Get("env"), p.Err)
				}
			}
		}
		lines = append(lines, e.Error())
	}
	return errors.New(strings.Join(lines, "; "))
}

// settings are the fields that have a variable, and their values.
func settings(c any) iter.Seq2[reflect.StructField, any] {
	return func(yield func(reflect.StructField, any) bool) {
		v := reflect.ValueOf(c)
		for i := range v.NumField() {
			f, value := v.Type().Field(i), v.Field(i).Interface()
			if f.Tag.Get("env") != "" {
				if !yield(f, value) {
					return
				}
				continue
			}
			for f, value := range settings(value) {
				if !yield(f, value) {
					return
				}
			}
		}
	}
}

func (c config) check() error {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("env") })
	if err := v.RegisterValidation("host:port", func(f validator.FieldLevel) bool { return listens(f.Field().String()) }); err != nil {
		return err
	}
	err := v.Struct(c)
	var wrong validator.ValidationErrors
	if errors.As(err, &wrong) {
		var lines []string
		for _, w := range wrong {
			lines = append(lines, fmt.Sprintf("%s must be %s", w.Field(), strings.TrimSpace(w.Tag()+" "+w.Param())))
		}
		return fmt.Errorf("environment: %s", strings.Join(lines, "; "))
	}
	if err != nil {
		return err
	}
	if c.RestartDelay > c.MaxRestartDelay {
		return errors.New("environment: RUNTIME_RESTART_DELAY must not be more than RUNTIME_MAX_RESTART_DELAY")
	}
	if err := c.loops().Validate(); err != nil {
		return fmt.Errorf("environment: RUNTIME_LOOP_WARNING, RUNTIME_LOOP_CRITICAL, RUNTIME_LOOP_BREAKER and RUNTIME_LOOP_WINDOW: %w", err)
	}
	return nil
}

// listens says whether an address can be listened on. An IPv6 host stands in
// brackets; port 0 is any free one, which the log names.
func listens(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// keyring is the secrets that sign and verify. Only dev goes without, and only
// where nobody else can call.
func (c config) keyring() (auth.Keyring, error) {
	if c.Secret != "" {
		k, err := auth.ParseKeyring(c.Secret)
		if err != nil {
			return k, fmt.Errorf("RUNTIME_SIGNATURE_SECRET: %w", err)
		}
		return k, nil
	}
	if c.Env != "dev" {
		return auth.Keyring{}, errors.New("RUNTIME_SIGNATURE_SECRET is not set; set it to kid:secret with a secret of at least 32 bytes, such as v1:$(openssl rand -hex 32)")
	}
	host, _, err := net.SplitHostPort(c.APIAddr)
	if err != nil {
		return auth.Keyring{}, err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return auth.Keyring{}, fmt.Errorf("RUNTIME_SIGNATURE_SECRET is not set, and RUNTIME_API_ADDR %s is not loopback: the dev secret is known to everybody", c.APIAddr)
	}
	return auth.DevKeyring(), nil
}

// verifier decides about callers.
func (c config) verifier(nonces auth.NonceStore) (*auth.Verifier, error) {
	keys, err := c.keyring()
	if err != nil {
		return nil, err
	}
	v := &auth.Verifier{Keys: keys, Audience: c.Audience, MaxLifetime: c.MaxTokenLife, Nonces: nonces}
	if c.Issuer != "" {
		v.Identity, err = auth.NewIdentityVerifier(auth.IdentityConfig{
			Issuer: c.Issuer, JWKSURL: c.JWKSURL, Audience: c.IdentityAud,
			AllowedEmails: c.AllowedEmails, AllowedSubjects: c.AllowedSubjects,
		})
	} else if c.JWKSURL != "" || c.IdentityAud != "" || len(c.AllowedEmails)+len(c.AllowedSubjects) > 0 {
		err = errors.New("RUNTIME_IDENTITY_ISSUER is not set, but other RUNTIME_IDENTITY_ settings are; set it, or none of them")
	}
	return v, err
}

// model is the model that answers.
func (c config) model() (model.Model, error) {
	if c.ModelProvider == "builtin" {
		return builtin.New(builtin.Config{Delay: c.ModelDelay, ContextTokens: c.ModelContext}), nil
	}
	o := model.OpenAIDefaults()
	o.BaseURL, o.APIKey, o.Model, o.ContextTokens = c.ModelBaseURL, c.ModelAPIKey, c.ModelName, c.ModelContext
	o.TotalTimeout, o.FirstTokenTimeout, o.BetweenTokensTimeout = c.ModelTimeout, c.ModelFirst, c.ModelSilence
	o.MaxRetries, o.MaxCompletionTokens = c.ModelRetries, c.ModelNewBounds
	m, err := model.NewOpenAI(o, egress.New(egress.Config{ResponseHeaderTimeout: c.ModelFirst}))
	if err != nil {
		return nil, fmt.Errorf("MODEL_PROVIDER=openai: %w", err)
	}
	return m, nil
}

// split shares the connections out: upkeep must not wait behind the rest, nor
// answers behind executions.
func (c config) split() (serving, executing, upkeep int) {
	upkeep = max(2, c.DatabaseConns/10) // renewals have one
	serving = (c.DatabaseConns - upkeep + 1) / 2
	return serving, c.DatabaseConns - upkeep - serving, upkeep
}

// admission is what is let in.
func (c config) admission() server.AdmissionConfig {
	a := server.DefaultAdmission()
	a.MaxWaitingFrames, a.MaxRunsPerOwner = c.MaxWaitingFrames, c.MaxRunsPerOwner
	a.MaxInFlight, a.MaxWait = c.MaxInFlight, c.MaxBacklogWait
	return a
}

func (c config) pool(conns int, name string) pg.Config {
	return pg.Config{
		URL: c.DatabaseURL, MaxConns: conns, AppName: "openagents-runtime " + name,
		// A process that stops inside a commit holds locks that whoever takes
		// its runs over needs.
		IdleInTransactionTimeout: min(pg.DefaultIdleInTransactionTimeout, c.LeaseTTL/3),
	}
}

// sweepPool is the janitor's, as the owner of the tables when there is one.
func (c config) sweepPool() pg.Config {
	p := c.pool(sweepConns, "sweeps")
	p.NoPing = true
	if c.UpkeepURL != "" {
		p.URL = c.UpkeepURL
	}
	return p
}

// logPool is the log's. A batch that waits for a head which somebody keeps locked
// has other heads locked itself; its units then go one by one.
func (c config) logPool() pg.Config {
	p := c.keyPool(c.Lanes+1, "log")
	p.LockTimeout = c.LeaseTTL / 4
	return p
}

func (c config) executor() executor.Config {
	e := executor.DefaultConfig()
	e.MaxRuns = c.MaxRuns
	e.MaxLosses, e.MaxLostFor = c.MaxLosses, c.MaxLostFor
	e.RestartDelay, e.MaxRestartDelay = c.RestartDelay, c.MaxRestartDelay
	e.CheckpointSteps, e.CheckpointEvents = c.CheckpointSteps, c.CheckpointEvents
	e.Loops = c.loops()
	// Nobody tells that a lease has expired; looking for it must not take long
	// beside the TTL.
	e.Tick = min(e.Tick, c.LeaseTTL/4)
	return e
}

// loops is what counts as a loop.
func (c config) loops() loop.Config {
	l := loop.Defaults()
	l.Window, l.Warning, l.Critical, l.Breaker = c.LoopWindow, c.LoopWarning, c.LoopCritical, c.LoopBreaker
	for _, name := range c.LoopOff {
		l.Off = append(l.Off, loop.Detector(name))
	}
	return l
}

// keyPool is a pool for what asks the log by key alone.
func (c config) keyPool(conns int, name string) pg.Config {
	p := c.pool(conns, name)
	p.ByKeyOnly = true
	return p
}

func (c config) retention(pool *pgxpool.Pool) runlog.Retention {
	return runlog.Retention{Pool: pool, FoldAfter: c.FoldAfter, Deltas: c.RetainDeltas, Events: c.RetainEvents}
}

// owner names this process in leases, for people.
func (c config) owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the settings in force, without secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig()
			for f, v := range settings(c) {
				value := fmt.Sprint(v)
				if f.Tag.Get("secret") == "true" && value != "" {
					value = "(set)"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-32s %-24s %s\n", f.Tag.Get("env"), value, f.Tag.Get("help"))
			}
			return err
		},
	}
}
