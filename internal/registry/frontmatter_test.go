package registry_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
)

// release publishes a skill, and answers its folder and the two halves of its
// SKILL.md.
func release(t *testing.T, need require.TestingT, r *registry.Registry, spec ds.SkillSpecV1) (root, front, rest string) {
	t.Helper()
	_, err := r.PutSkill(t.Context(), ada, nil, spec)
	require.NoError(need, err)
	made, err := r.PublishSkill(t.Context(), ada, spec.SkillID, spec.Version)
	require.NoError(need, err)
	var bundle struct {
		Root  string
		Files map[string]string
	}
	require.NoError(need, json.Unmarshal(made.Bundle, &bundle))
	body, ok := strings.CutPrefix(bundle.Files[bundle.Root+"/SKILL.md"], "---\n")
	require.True(need, ok)
	front, rest, ok = strings.Cut(body, "\n---\n")
	require.True(need, ok)
	return bundle.Root, front, rest
}

func TestFrontMatterHoldsOddTexts(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	spec := orders(1)
	spec.Name, spec.Description = "日本 – Ordr: \"x\" # {y}", "a: b\n---\nname: other\n- 'c' & *d !e % yes"
	spec.InstructionsMarkdown = "---\nfirst: line\n---\n"
	root, front, rest := release(t, t, r, spec)
	require.Equal(t, "ordr-x-y", root)
	require.Equal(t, "\n---\nfirst: line\n---\n", rest)
	var read map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(front), &read))
	require.Equal(t, map[string]any{"name": root, "description": spec.Description, "metadata": map[string]any{"title": spec.Name}}, read)
}

// What other readers of YAML take for something else is written so that they
// do not.
func TestFrontMatterIsReadAlikeByReadersOfOlderYAML(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	spec := orders(1)
	spec.Description = "\tindented"
	spec.Metadata = map[string]any{
		"million": 1000000.0, "half": 0.5, "vast": 1e300, "tiny": 2.5e-9, "whole": 1.0, "is": "=", "no": "off", "date": "2026-01-01", "time": "1:20",
		"nothing": nil, "list": []any{map[string]any{"a": "no", "b": true}},
	}
	_, front, _ := release(t, t, r, spec)
	require.Equal(t, strings.TrimSpace(`
name: order-desk
description: "\tindented"
metadata:
  date: "2026-01-01"
  half: 0.5
  is: "="
  list:
    - a: "no"
      b: true
  million: 1000000
  "no": "off"
  nothing: null
  time: "1:20"
  tiny: 2.5e-09
  title: Order desk
  vast: 1.0e+300
  whole: 1`), front)
}

// Whatever a spec says, SKILL.md says the same and nothing more.
func TestFrontMatterSaysWhatTheSpecSays(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	piece := rapid.SampledFrom([]string{
		" ", "\n", "\t", "\r", "a", "yes", "no", "null", "~", "1", "1e3", "0x1", "1_0", "08", ".inf", "2026-01-01", "1:20", "<<", "=",
		": ", " #", "- ", "---", "...", "?", "|", ">", "'", `"`, `\`, "%", "@", "`", "{", "}", "[", "]", ",", "&a", "*a", "!x",
		"\u0085", "\u00a0", "\u2028", "\ufeff", "\u007f", "\u001b", "日本", "😀", strings.Repeat("long ", 40),
	})
	words := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(t, "pieces"), "")
	})
	version := int32(0)
	rapid.Check(t, func(rt *rapid.T) {
		version++
		spec := orders(version)
		spec.SkillID = fmt.Sprintf("acme-%d", version)
		spec.Description = words.Draw(rt, "description")
		if strings.TrimSpace(spec.Description) == "" {
			spec.Description += "x"
		}
		spec.Metadata = map[string]any{
			"title": words.Draw(rt, "title"), "k" + words.Draw(rt, "name"): []any{words.Draw(rt, "a"), map[string]any{words.Draw(rt, "b"): words.Draw(rt, "c")}},
		}
		spec.Compatibility = map[string]any{words.Draw(rt, "needs"): rapid.Float64Range(-1e12, 1e12).Draw(rt, "n")}
		root, front, _ := release(t, rt, r, spec)
		var read struct {
			Name, Description       string
			Metadata, Compatibility map[string]any
		}
		require.NoError(rt, yaml.Unmarshal([]byte(front), &read), front)
		require.Equal(rt, root, read.Name)
		require.Equal(rt, spec.Description, read.Description)
		require.Equal(rt, spec.Metadata, read.Metadata)
		for name, n := range spec.Compatibility {
			require.EqualValues(rt, n, read.Compatibility[name], front)
		}
	})
}
