package server

import (
	"context"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

const pingTimeout = 2 * time.Second

// Health tells whether this process reaches its database.
func (s *Server) Health(ctx context.Context, _ api.HealthRequestObject) (api.HealthResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := s.Pool.Ping(ctx); err != nil {
		return nil, fault.New(api.Unavailable, "the database does not answer").Because(err)
	}
	return api.Health200JSONResponse{Body: api.Health{
		Status: api.HealthStatusOk, Service: api.HealthServiceRuntime, Version: s.Version,
	}}, nil
}
