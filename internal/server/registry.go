package server

import (
	"context"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// The registry is answered in its own commit.
var errNoRegistry = fault.New(api.Unavailable, "this build has no registry")

func (s *Server) ListToolSpecs(context.Context, api.ListToolSpecsRequestObject) (api.ListToolSpecsResponseObject, error) {
	return nil, errNoRegistry
}
func (s *Server) PutToolSpec(context.Context, api.PutToolSpecRequestObject) (api.PutToolSpecResponseObject, error) {
	return nil, errNoRegistry
}
func (s *Server) ListSkillSpecs(context.Context, api.ListSkillSpecsRequestObject) (api.ListSkillSpecsResponseObject, error) {
	return nil, errNoRegistry
}
func (s *Server) PutSkillSpec(context.Context, api.PutSkillSpecRequestObject) (api.PutSkillSpecResponseObject, error) {
	return nil, errNoRegistry
}
func (s *Server) PublishSkill(context.Context, api.PublishSkillRequestObject) (api.PublishSkillResponseObject, error) {
	return nil, errNoRegistry
}
func (s *Server) GetSkillRelease(context.Context, api.GetSkillReleaseRequestObject) (api.GetSkillReleaseResponseObject, error) {
	return nil, errNoRegistry
}
