package main

import (
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
)

// builtinHooks are the hooks in Go of this program; a program that embeds the
// runtime adds its own here.
var builtinHooks []hook.Hook

// hooks are those of this program and of the configuration.
func (c config) hooks() (*hook.Registry, error) {
	configured, err := hook.Load(c.Hooks, egress.New(egress.Config{Timeout: time.Minute}))
	if err != nil {
		return nil, err
	}
	return hook.NewRegistry(append(builtinHooks[:len(builtinHooks):len(builtinHooks)], configured...)...)
}
