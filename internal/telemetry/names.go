package telemetry

// Metric is a metric's name (without the prefix openagents_runtime_), meaning
// and labels. A metric that is not in this file does not exist.
type Metric struct {
	Name, Help string
	Labels     []Label
}

var (
	// The log.

	LogEvents           = Metric{"log_events_total", "Events appended.", []Label{EventType}}
	LogCommitUnits      = Metric{"log_commit_units", "Units that share one commit of the log.", nil}
	LogCommitSeconds    = Metric{"log_commit_seconds", "Time of one commit of the log.", nil}
	LogUnitsRefused     = Metric{"log_units_refused_total", "Units that were not written, by cause.", []Label{Outcome}}
	LogListenReconnects = Metric{"log_listen_reconnects_total", "Times that the notification connection was made.", nil}

	// Leases.

	LeaseAcquires = Metric{"lease_acquires_total", "Tries to take a lease.", []Label{Outcome}}
	LeaseLosses   = Metric{"lease_losses_total", "Leases that their holder lost.", nil}
	LeasesHeld    = Metric{"leases_held_leases", "Leases that this process holds.", nil}

	// Execution.

	ExecutorSteps   = Metric{"executor_steps_total", "Steps, by how they ended.", []Label{Outcome}}
	CheckpointReads = Metric{"executor_checkpoint_reads_total", "Checkpoints looked for when a run is taken: used, none, or ignored and why.", []Label{Outcome}}
	ExecutorPanics  = Metric{"executor_panics_total", "Sessions that ended in a panic.", nil}
	ExecutorActive  = Metric{"executor_active_runs", "Runs that are being driven.", nil}
	RunsFinished    = Metric{"runs_finished_total", "Runs that reached a terminal status here.", []Label{RunStatus, ReasonClass}}
	PredictCalls    = Metric{"predict_calls_total", "Calls of signatures.", []Label{Signature, Outcome}}
	PredictSeconds  = Metric{"predict_call_seconds", "Time of a call of a signature.", []Label{Signature}}
	PredictTokens   = Metric{"predict_tokens_total", "Tokens that models read and wrote.", []Label{Provider}}
	ModelCalls      = Metric{"model_calls_total", "Calls of a language model.", []Label{Provider, Outcome}}
	ModelAttempts   = Metric{"model_attempts_total", "HTTP attempts of model calls.", []Label{Provider}}
	ModelSeconds    = Metric{"model_call_seconds", "Time of a model call.", []Label{Provider}}
	ModelFirstDelta = Metric{"model_first_delta_seconds", "Time to a model's first delta.", []Label{Provider}}

	// Tools.

	ToolCalls     = Metric{"tool_calls_total", "Calls of tools that ended here, by how.", []Label{Provider, Outcome}}
	ToolAttempts  = Metric{"tool_attempts_total", "Attempts at calls of tools.", []Label{Provider}}
	ToolSeconds   = Metric{"tool_call_seconds", "Time of a call of a tool, with all attempts.", []Label{Provider}}
	ToolRunning   = Metric{"tool_running_calls", "Calls of tools that are being made.", nil}
	ToolFull      = Metric{"tool_full_total", "Calls that had to wait for room, by the limit that was met: run, owner, tool, provider, global.", []Label{Outcome}}
	ToolAbandoned = Metric{"tool_abandoned_total", "Attempts that went on after their end and were left behind.", []Label{Provider}}
	ToolLate      = Metric{"tool_late_results_total", "Results that came after their call, or its run, had ended.", nil}
	ToolBreaker   = Metric{"tool_breaker_state", "1 for the state that a provider's circuit breaker is in, in this process: closed, half_open, open.", []Label{Provider, Outcome}}

	// The API and its streams.

	HTTPRequests  = Metric{"http_requests_total", "Requests answered by the API.", []Label{Operation, StatusClass}}
	HTTPSeconds   = Metric{"http_request_seconds", "Time from a request's header to the end of its answer.", []Label{Operation}}
	AuthRefusals  = Metric{"auth_refusals_total", "Callers who were not let in.", []Label{Reason}}
	StreamReaders = Metric{"stream_readers", "Streams that are open.", nil}
	StreamBlocks  = Metric{"stream_blocks_total", "Events sent to readers.", nil}
	StreamEnds    = Metric{"stream_ends_total", "Streams that ended, by how; all but done were broken off.", []Label{Outcome}}
	StreamCatchUp = Metric{"stream_catch_up_seconds", "Time from opening a stream until its reader had all events that were there, if there were any.", nil}

	// Upkeep.

	SweepPasses  = Metric{"sweep_passes_total", "Passes of the janitor's sweeps.", []Label{Sweep, Outcome}}
	SweepChanges = Metric{"sweep_changes_total", "What sweeps changed: rows, runs or partitions.", []Label{Sweep}}
	SweepSeconds = Metric{"sweep_seconds", "Time of one pass of a sweep.", []Label{Sweep}}

	// Calls to hosts that somebody else may have chosen.

	EgressRefusals = Metric{"egress_refusals_total", "Outgoing calls that were refused, by reason code.", []Label{Provider, Reason}}

	// Supervision.

	ExecutorFailures = Metric{"executor_session_failures_total", "Sessions of runs that ended early, by cause: panic, hang, database, lease_lost, other. The run goes on with another session.", []Label{Outcome}}
	ExecutorLoops    = Metric{"executor_loops_total", "Loops of frames that were seen, by level.", []Label{Outcome}}

	// Admission.

	AdmissionRefusals = Metric{"admission_refusals_total", "Requests that were refused for want of room, by cause: in_flight, queue, overdue, connections, frames, owner.", []Label{Outcome}}
)
