package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// registry is made of the tools that this process carries out itself.
func (s *service) registry() (*registry.Registry, error) {
	view, err := s.catalog.For(nil)
	if err != nil {
		return nil, err
	}
	tools, err := server.BuiltInTools(view.Specs())
	if err != nil {
		return nil, err
	}
	return registry.New(s.pool, tools)
}

// toolSpecCommands list and store specs of tools.
func (t *target) toolSpecCommands() *cobra.Command {
	specs := &cobra.Command{Use: "tool-spec", Short: "List and store specs of tools"}
	var p specPage
	list := t.with(&cobra.Command{Use: "list", Short: "List the tool specs, built-in ones included", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.ListToolSpecsWithResponse(cmd.Context(), &api.ListToolSpecsParams{Limit: &p.limit, PageToken: optional(p.token), ToolID: optional(p.id)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	p.flags(list)
	var state string
	put := t.with(&cobra.Command{Use: "put FILE", Short: "Store a version of a tool spec from a JSON file; - is the input", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			body := api.PutToolSpecRequest{State: (*api.SpecState)(optional(state))}
			if err := readJSON(cmd, args[0], &body.ToolSpec); err != nil {
				return err
			}
			r, err := c.PutToolSpecWithResponse(cmd.Context(), &api.PutToolSpecParams{}, body)
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	put.Flags().StringVar(&state, "state", "", "draft, validated, published or deprecated; as it is, or validated, when empty")
	specs.AddCommand(list, put)
	return specs
}

// skillCommands list, store and publish skills.
func (t *target) skillCommands() *cobra.Command {
	skills := &cobra.Command{Use: "skill", Short: "List, store and publish skills"}
	var p specPage
	list := t.with(&cobra.Command{Use: "list", Short: "List the skill specs, built-in ones included", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.ListSkillSpecsWithResponse(cmd.Context(), &api.ListSkillSpecsParams{Limit: &p.limit, PageToken: optional(p.token), SkillID: optional(p.id)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	p.flags(list)
	var state string
	put := t.with(&cobra.Command{Use: "put FILE", Short: "Store a version of a skill spec from a JSON file; - is the input", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			body := api.PutSkillSpecRequest{State: (*api.SpecState)(optional(state))}
			if err := readJSON(cmd, args[0], &body.SkillSpec); err != nil {
				return err
			}
			r, err := c.PutSkillSpecWithResponse(cmd.Context(), &api.PutSkillSpecParams{}, body)
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	put.Flags().StringVar(&state, "state", "", "draft, validated or deprecated; as it is, or validated, when empty")
	publish := t.with(&cobra.Command{Use: "publish SKILL_ID VERSION", Short: "Publish a skill as an immutable release", Args: cobra.ExactArgs(2)},
		func(cmd *cobra.Command, c *client, args []string) error {
			version, err := versionOf(args[1])
			if err != nil {
				return err
			}
			r, err := c.PublishSkillWithResponse(cmd.Context(), args[0], version, &api.PublishSkillParams{})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	release := t.with(&cobra.Command{Use: "release SKILL_ID VERSION", Short: "Show a release", Args: cobra.ExactArgs(2)},
		func(cmd *cobra.Command, c *client, args []string) error {
			version, err := versionOf(args[1])
			if err != nil {
				return err
			}
			r, err := c.GetSkillReleaseWithResponse(cmd.Context(), args[0], version, &api.GetSkillReleaseParams{})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	skills.AddCommand(list, put, publish, release)
	return skills
}

// specPage is which part of a list is shown.
type specPage struct {
	limit     int32
	token, id string
}

func (p *specPage) flags(cmd *cobra.Command) {
	cmd.Flags().Int32Var(&p.limit, "limit", 50, "versions per page, 1 to 200")
	cmd.Flags().StringVar(&p.token, "page", "", "the nextPageToken of the page before")
	cmd.Flags().StringVar(&p.id, "id", "", "only versions of this one")
}

func versionOf(arg string) (int32, error) {
	n, err := strconv.ParseInt(arg, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("VERSION must be a number from 1: %w", err)
	}
	return int32(n), nil
}

// readJSON reads a value from a file, or from the command's input for "-".
func readJSON(cmd *cobra.Command, name string, to any) error {
	read := func() ([]byte, error) { return os.ReadFile(name) }
	if name == "-" {
		read = func() ([]byte, error) { return io.ReadAll(cmd.InOrStdin()) }
	}
	raw, err := read()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s must be a JSON spec: %w", name, err)
	}
	return nil
}
