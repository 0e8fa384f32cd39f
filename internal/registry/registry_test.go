package registry_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const ada, eve = "user:1", "user:2"

var (
	draft, validated, published, deprecated = registry.Draft, registry.Validated, registry.Published, registry.Deprecated
	states                                  = []string{draft, validated, published, deprecated}
)

func open(t testing.TB, pool *pgxpool.Pool, builtIn ...ds.ToolSpecV1) *registry.Registry {
	t.Helper()
	r, err := registry.New(pool, builtIn)
	require.NoError(t, err)
	return r
}

func lookup(id string, version int32) ds.ToolSpecV1 {
	return ds.ToolSpecV1{
		ToolID: id, Version: version, Name: "Look up", Description: "Looks up an order.", ToolPack: "mcp.v1", ExecutionKind: "mcp",
		SettlementBoundary: "safe_retry", InputSchema: map[string]any{"type": "object"}, OutputSchema: map[string]any{},
	}
}

func orders(version int32, tools ...ds.SkillSpecV1ToolRef) ds.SkillSpecV1 {
	return ds.SkillSpecV1{
		SkillID: "acme-orders", Version: version, Name: "Order desk", Description: "Answers questions about orders.",
		InstructionsMarkdown: "Look it up.\n", AllowedTools: append([]ds.SkillSpecV1ToolRef{}, tools...),
	}
}

func ref(id string, version int32) ds.SkillSpecV1ToolRef {
	return ds.SkillSpecV1ToolRef{ToolID: id, Version: version}
}

func requireFault(t testing.TB, err error, code api.ErrorCode) {
	t.Helper()
	require.Truef(t, fault.Is(err, code), "want %s, have %v", code, err)
}

func TestTheSameContentAgainIsTheSameAnswer(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for _, state := range []*string{nil, &draft, &validated, &published, &deprecated} {
		id := "acme.any"
		if state != nil {
			id = "acme." + *state
		}
		first, err := r.PutTool(t.Context(), ada, state, lookup(id, 1))
		require.NoError(t, err)
		for _, again := range []*string{state, nil} {
			second, err := r.PutTool(t.Context(), ada, again, lookup(id, 1))
			require.NoError(t, err)
			require.Equal(t, first, second)
		}
		hash, err := canon.HashJSON(lookup(id, 1))
		require.NoError(t, err)
		require.Equal(t, hash, first.ContentHash, "the digest is of the spec alone")
	}
}

// Every move of a state, with the same content and with other.
func TestStatesMoveForwardsAndThePublishedKeepTheirContent(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for i, from := range states {
		for j, to := range states {
			for _, changed := range []bool{false, true} {
				id := fmt.Sprintf("acme.%s-%s-%t", from, to, changed)
				before, err := r.PutTool(t.Context(), ada, &from, lookup(id, 1))
				require.NoError(t, err)
				next := lookup(id, 1)
				if changed {
					next.Description = "Finds an order."
				}
				got, err := r.PutTool(t.Context(), ada, &to, next)
				if legal := j >= i && (!changed || i < 2); legal {
					require.NoError(t, err, id)
					require.Equal(t, to, got.State)
					require.Equal(t, changed, got.ContentHash != before.ContentHash)
					continue
				}
				requireFault(t, err, api.SpecConflict)
				kept, err := r.PutTool(t.Context(), ada, nil, lookup(id, 1))
				require.NoError(t, err)
				require.Equal(t, before, kept, id)
			}
		}
	}
}

func TestOneOwnerHasAllVersionsOfAnID(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	_, err := r.PutTool(t.Context(), ada, nil, lookup("acme.lookup", 3))
	require.NoError(t, err)
	_, err = r.PutSkill(t.Context(), ada, nil, orders(3))
	require.NoError(t, err)
	for _, version := range []int32{1, 3, 4} {
		_, err := r.PutTool(t.Context(), eve, nil, lookup("acme.lookup", version))
		requireFault(t, err, api.Forbidden)
		_, err = r.PutSkill(t.Context(), eve, nil, orders(version))
		requireFault(t, err, api.Forbidden)
	}
	_, err = r.PutTool(t.Context(), ada, nil, lookup("acme.lookup", 1))
	require.NoError(t, err)
}

// Many users begin versions of one id at once: one of them has it, all of it.
func TestWritersThatRaceForAnIDLeaveOneOwner(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool)
	const writers, ids = 12, 15
	for n := range ids {
		tool, skill := lookup(fmt.Sprintf("acme.race-%d", n), 1), orders(1)
		skill.SkillID = fmt.Sprintf("acme-race-%d", n)
		var mu sync.Mutex
		won := map[string]map[string]bool{"tool": {}, "skill": {}}
		var g errgroup.Group
		for w := range writers {
			g.Go(func() error {
				owner, tool, skill := fmt.Sprintf("user:%d", w%4+1), tool, skill
				tool.Version, skill.Version = int32(w/4+1), int32(w/4+1)
				_, toolErr := r.PutTool(t.Context(), owner, nil, tool)
				_, skillErr := r.PutSkill(t.Context(), owner, nil, skill)
				mu.Lock()
				defer mu.Unlock()
				for kind, err := range map[string]error{"tool": toolErr, "skill": skillErr} {
					if err == nil {
						won[kind][owner] = true
					} else if !fault.Is(err, api.Forbidden) {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
		require.Len(t, won["tool"], 1, "%v", won)
		require.Len(t, won["skill"], 1, "%v", won)
	}
	for _, kind := range []string{"tool", "skill"} {
		var shared, rows int
		require.NoError(t, pool.QueryRow(t.Context(), fmt.Sprintf(
			`SELECT count(*) FROM (SELECT 1 FROM %[1]s_specs GROUP BY %[1]s_id HAVING count(DISTINCT owner) > 1) AS s`, kind)).Scan(&shared))
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM "+kind+"_specs").Scan(&rows))
		require.Zero(t, shared)
		require.Equal(t, ids*writers/4, rows, "the owner has every version")
	}
}

// One of many contents is published; whoever comes later does not change it.
func TestWritersThatRaceToPublishLeaveOneContent(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool)
	var mu sync.Mutex
	told := map[string]bool{}
	var g errgroup.Group
	for w := range 16 {
		g.Go(func() error {
			spec := lookup("acme.lookup", 1)
			spec.Description = fmt.Sprint("Content ", w)
			e, err := r.PutTool(t.Context(), ada, &published, spec)
			if fault.Is(err, api.SpecConflict) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			told[e.ContentHash] = true
			return err
		})
	}
	require.NoError(t, g.Wait())
	require.Len(t, told, 1)
	row, err := db.New(pool).ToolSpecGet(t.Context(), db.ToolSpecGetParams{ToolID: "acme.lookup", Version: 1})
	require.NoError(t, err)
	require.True(t, told[row.ContentHash])
}

func TestWhatIsBuiltInIsNotShadowed(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool, lookup("acme.shipped", 1))
	for _, id := range []string{"acme.shipped", "http.fetch", "github.get_issue", "email.send", "timeline.search", "github.new"} {
		for _, version := range []int32{1, 2} {
			_, err := r.PutTool(t.Context(), ada, nil, lookup(id, version))
			requireFault(t, err, api.Forbidden)
		}
	}
	skill := orders(2)
	skill.SkillID = "resend-comms"
	_, err := r.PutSkill(t.Context(), ada, nil, skill)
	requireFault(t, err, api.Forbidden)
	_, err = r.PublishSkill(t.Context(), ada, "resend-comms", 1)
	requireFault(t, err, api.Forbidden)

	// A row from before the tool was built in is not seen.
	_, err = open(t, pool).PutTool(t.Context(), eve, nil, lookup("acme.shipped", 2))
	require.NoError(t, err)
	list, _, err := r.ListTools(t.Context(), registry.Reader{Owner: eve, ID: "acme.shipped", Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, registry.BuiltIn, list[0].Owner)
	_, err = r.PutSkill(t.Context(), ada, nil, orders(1, ref("acme.shipped", 2)))
	require.NoError(t, err)
	_, err = r.PublishSkill(t.Context(), ada, "acme-orders", 1)
	requireFault(t, err, api.SpecNotFound)
}

func TestPagesHoldEachVersionOnceInOneOrder(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t), lookup("acme.m", 1), lookup("Acme.m", 1), lookup("zz.last", 1))
	want := []string{"Acme.m@1", "acme.m@1", "zz.last@1"}
	for _, id := range []string{"acme.a", "acme.A", "acme-b", "acme:b", "acme_b", "ACME"} {
		for _, version := range []int32{1, 2, 10} {
			_, err := r.PutTool(t.Context(), ada, nil, lookup(id, version))
			require.NoError(t, err)
			want = append(want, fmt.Sprintf("%s@%d", id, version))
		}
	}
	_, err := r.PutTool(t.Context(), eve, &draft, lookup("acme.draft", 1))
	require.NoError(t, err)
	for _, limit := range []int{1, 2, 3, 7, 21, 22, 200} {
		var got []string
		q := registry.Reader{Owner: ada, Limit: limit}
		for {
			page, next, err := r.ListTools(t.Context(), q)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), limit)
			for _, e := range page {
				got = append(got, fmt.Sprintf("%s@%d", e.ID, e.Version))
			}
			if next == nil {
				break
			}
			require.Len(t, page, limit, "only the last page is short")
			q.After = *next
		}
		require.ElementsMatch(t, want, got)
		require.True(t, slices.IsSortedFunc(got, func(a, b string) int {
			x, y := strings.Split(a, "@")[0], strings.Split(b, "@")[0]
			return strings.Compare(x, y)
		}), "by id, byte by byte: %v", got)
	}
	page, next, err := r.ListTools(t.Context(), registry.Reader{Owner: ada, ID: "acme.a", Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []int32{1, 2}, []int32{page[0].Version, page[1].Version})
	require.Equal(t, &registry.Place{ID: "acme.a", Version: 2}, next)
}

func TestDraftsAreForTheirOwner(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	skill := orders(1)
	_, err := r.PutTool(t.Context(), ada, &draft, lookup("acme.lookup", 1))
	require.NoError(t, err)
	_, err = r.PutSkill(t.Context(), ada, &draft, skill)
	require.NoError(t, err)
	for _, c := range []struct {
		reader registry.Reader
		seen   int
	}{
		{registry.Reader{Owner: ada}, 1}, {registry.Reader{Owner: eve}, 0}, {registry.Reader{Owner: "*", Everything: true}, 1}, {registry.Reader{}, 0},
	} {
		c.reader.Limit = 5
		c.reader.ID = "acme.lookup"
		tools, _, err := r.ListTools(t.Context(), c.reader)
		require.NoError(t, err)
		require.Len(t, tools, c.seen)
		c.reader.ID = "acme-orders"
		skills, _, err := r.ListSkills(t.Context(), c.reader)
		require.NoError(t, err)
		require.Len(t, skills, c.seen)
	}
}

func TestAReleaseIsMadeOnceAndIsWhatItsDigestSays(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool, lookup("acme.shipped", 1))
	tool, err := r.PutTool(t.Context(), ada, nil, lookup("acme.lookup", 1))
	require.NoError(t, err)
	license := "MIT"
	spec := orders(1, ref("acme.shipped", 1), ref("acme.lookup", 1), ref("acme.lookup", 1))
	spec.License, spec.References = &license, []ds.SkillSpecV1File{{Path: "a/states.md", Content: "open"}}
	_, err = r.PutSkill(t.Context(), ada, nil, spec)
	require.NoError(t, err)

	releases := make([]db.SkillRelease, 12)
	var g errgroup.Group
	for i := range releases {
		g.Go(func() (err error) {
			releases[i], err = r.PublishSkill(t.Context(), ada, "acme-orders", 1)
			return err
		})
	}
	require.NoError(t, g.Wait())
	for _, other := range releases {
		require.Equal(t, releases[0], other)
	}
	release := releases[0]
	hash, err := canon.HashJSON(json.RawMessage(release.Bundle))
	require.NoError(t, err)
	require.Equal(t, hash, release.BundleHash)
	id, err := canon.HashJSON(map[string]any{"skill_id": "acme-orders", "version": 1, "bundle_hash": hash})
	require.NoError(t, err)
	require.Equal(t, "skillrel_"+strings.TrimPrefix(id, "sha256:")[:24], release.ReleaseID)
	require.Contains(t, string(release.Bundle), tool.ContentHash, "the tools are named as they were")
	require.Contains(t, string(release.Bundle), `"order-desk/references/a/states.md":"open"`)
	require.Contains(t, string(release.CompatibilityReport), `"compatible":true`)

	// What comes later changes nothing.
	_, err = r.PutTool(t.Context(), ada, &deprecated, lookup("acme.lookup", 1))
	require.NoError(t, err)
	again, err := r.PublishSkill(t.Context(), ada, "acme-orders", 1)
	require.NoError(t, err)
	require.Equal(t, release, again)
	read, err := r.Release(t.Context(), "acme-orders", 1)
	require.NoError(t, err)
	require.Equal(t, release, read)
	changed := spec
	changed.Description = "Something else."
	_, err = r.PutSkill(t.Context(), ada, nil, changed)
	requireFault(t, err, api.SpecConflict)
	_, err = r.PutSkill(t.Context(), ada, &published, spec)
	require.NoError(t, err, "it is published already")
	_, err = r.PutSkill(t.Context(), ada, &deprecated, spec)
	require.NoError(t, err)
	_, err = r.PublishSkill(t.Context(), ada, "acme-orders", 1)
	requireFault(t, err, api.SpecConflict)
	read, err = r.Release(t.Context(), "acme-orders", 1)
	require.NoError(t, err)
	require.Equal(t, release, read, "a release outlives its spec's deprecation")
}

// A put of other content and a publication at once: the release is of the
// content that the spec keeps.
func TestAReleaseIsOfTheContentThatStays(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool)
	for n := range 20 {
		spec := orders(1)
		spec.SkillID = fmt.Sprintf("acme-%d", n)
		_, err := r.PutSkill(t.Context(), ada, nil, spec)
		require.NoError(t, err)
		var g errgroup.Group
		g.Go(func() error {
			other := spec
			other.InstructionsMarkdown = "Otherwise."
			_, err := r.PutSkill(t.Context(), ada, nil, other)
			if fault.Is(err, api.SpecConflict) {
				return nil
			}
			return err
		})
		g.Go(func() error {
			_, err := r.PublishSkill(t.Context(), ada, spec.SkillID, 1)
			return err
		})
		require.NoError(t, g.Wait())
		row, err := db.New(pool).SkillSpecGet(t.Context(), db.SkillSpecGetParams{SkillID: spec.SkillID, Version: 1})
		require.NoError(t, err)
		var stored ds.SkillSpecV1
		require.NoError(t, json.Unmarshal(row.Spec, &stored))
		release, err := r.Release(t.Context(), spec.SkillID, 1)
		require.NoError(t, err)
		require.Contains(t, string(release.Bundle), strings.TrimSpace(stored.InstructionsMarkdown))
		require.Equal(t, published, row.State)
	}
}

func TestOnlyAValidatedSkillOfOnesOwnIsPublished(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for version, state := range map[int32]string{1: draft, 2: validated, 3: deprecated} {
		_, err := r.PutSkill(t.Context(), ada, &state, orders(version))
		require.NoError(t, err)
	}
	_, err := r.PutSkill(t.Context(), ada, &published, orders(4))
	requireFault(t, err, api.SpecConflict)
	_, err = r.PutSkill(t.Context(), ada, &published, orders(2))
	requireFault(t, err, api.SpecConflict)
	for _, c := range []struct {
		owner   string
		version int32
		code    api.ErrorCode
	}{
		{ada, 1, api.SpecConflict}, {ada, 3, api.SpecConflict}, {ada, 9, api.SpecNotFound},
		{eve, 1, api.SpecNotFound}, {eve, 2, api.Forbidden},
	} {
		_, err := r.PublishSkill(t.Context(), c.owner, "acme-orders", c.version)
		requireFault(t, err, c.code)
		_, err = r.Release(t.Context(), "acme-orders", c.version)
		requireFault(t, err, api.SpecNotFound)
	}
}

func TestASkillIsPublishedWithToolsThatMayBeUsed(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for _, state := range states {
		_, err := r.PutTool(t.Context(), eve, &state, lookup("acme."+state, 1))
		require.NoError(t, err)
	}
	inactive := lookup("acme.inactive", 1)
	inactive.IntegrationManifest = manifest(t)
	inactive.IntegrationManifest["status"], inactive.ToolPack = "inactive", "coding.v1"
	_, err := r.PutTool(t.Context(), eve, nil, inactive)
	require.NoError(t, err)
	for i, c := range []struct {
		tool string
		ok   bool
	}{
		{"acme.draft", false}, {"acme.validated", true}, {"acme.published", true}, {"acme.deprecated", false}, {"acme.none", false},
		{"acme.inactive", false}, {"github.get_issue", false}, // of this process, which has no GitHub
	} {
		_, err := r.PutSkill(t.Context(), ada, nil, orders(int32(i+1), ref(c.tool, 1)))
		require.NoError(t, err)
		_, err = r.PublishSkill(t.Context(), ada, "acme-orders", int32(i+1))
		if c.ok {
			require.NoError(t, err, c.tool)
			continue
		}
		requireFault(t, err, api.SpecNotFound)
		require.ErrorContains(t, err, c.tool+"@v1")
	}
}

// A release says whose integration a tool is of, and how often that may be asked.
func TestAReleaseTellsTheRatesOfItsTools(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	tool := lookup("acme.issues", 1)
	tool.ToolPack, tool.IntegrationManifest = "coding.v1", manifest(t)
	stored, err := r.PutTool(t.Context(), eve, nil, tool)
	require.NoError(t, err)
	_, err = r.PutSkill(t.Context(), ada, nil, orders(1, ref("acme.issues", 1)))
	require.NoError(t, err)
	release, err := r.PublishSkill(t.Context(), ada, "acme-orders", 1)
	require.NoError(t, err)
	require.Equal(t, []any{map[string]any{
		"tool_id": "acme.issues", "version": 1.0, "tool_pack": "coding.v1", "integration_id": "github.primary",
		"provider": "github", "max_per_minute": 240.0, "content_hash": stored.ContentHash,
	}}, decoded(t, string(release.Bundle))["tool_manifest_refs"])
}

func TestFilesStayInTheirFolder(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for _, paths := range [][]string{
		{"../x"}, {"a/../../x"}, {"a/.."}, {"/etc/passwd"}, {"a//b"}, {"a/./b"}, {"a/"}, {"."}, {".."}, {"x", "x"}, {"x", "X"}, {"x", "x/y"}, {"X/y", "x"},
	} {
		spec := orders(1)
		for _, p := range paths {
			spec.Scripts = append(spec.Scripts, ds.SkillSpecV1File{Path: p, Content: "x"})
		}
		_, err := r.PutSkill(t.Context(), ada, nil, spec)
		requireFault(t, err, api.InvalidRequest)
	}
	spec := orders(1)
	spec.Scripts = []ds.SkillSpecV1File{{Path: "a/b..c", Content: "x"}, {Path: "a/b", Content: "x"}}
	_, err := r.PutSkill(t.Context(), ada, nil, spec)
	require.NoError(t, err)
}

func TestSchemasOfAToolStandForThemselves(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for _, schema := range []map[string]any{
		{"type": "objekt"}, {"$ref": "https://example.com/x.json"}, {"$ref": "#/$defs/none"}, {"$ref": "file:///etc/passwd"}, {"pattern": "("}, {"required": "x"},
	} {
		in, out := lookup("acme.lookup", 1), lookup("acme.lookup", 1)
		in.InputSchema, out.OutputSchema = schema, schema
		for _, spec := range []ds.ToolSpecV1{in, out} {
			_, err := r.PutTool(t.Context(), ada, nil, spec)
			requireFault(t, err, api.InvalidRequest)
		}
	}
}

// No statement of any room changes a release or removes one.
func TestNoStatementChangesARelease(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../queries/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	changes := regexp.MustCompile(`(?i)\b(update|delete\s+from|truncate|merge\s+into)\s+(only\s+)?(runtime\.)?skill_releases\b|do\s+update`)
	touching := 0
	for _, name := range files {
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		for statement := range strings.SplitSeq(string(raw), "-- name:") {
			if strings.Contains(statement, "skill_releases") {
				touching++
				require.NotRegexp(t, changes, statement)
			}
		}
	}
	require.Equal(t, 2, touching, "an insert and a read")
}
