package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

type listed struct {
	ImportPath, Name, Dir              string
	Imports                            []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func ours(p listed) Package {
	out := Package{Path: strings.TrimPrefix(p.ImportPath, Module)}
	for _, i := range p.Imports {
		if below, ok := strings.CutPrefix(i, Module); ok {
			out.Imports = append(out.Imports, below)
		}
	}
	return out
}

func TestImportsFollowTheDrawing(t *testing.T) {
	t.Parallel()
	var pkgs []Package
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 {
			pkgs = append(pkgs, ours(p))
		}
	}
	require.Empty(t, Forbidden(pkgs))
}

func TestForbiddenImportsAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pkg  Package
		want string
	}{
		"between neighbours": {Package{"internal/lease", []string{"internal/spend"}}, "internal/lease imports internal/spend: from lease only these arrows go out: runlog pg fault telemetry"},
		"upward":             {Package{"internal/runlog", []string{"internal/server"}}, "internal/runlog imports internal/server"},
		"below a room":       {Package{"internal/stream/parts", []string{"internal/executor"}}, "internal/stream/parts imports internal/executor"},
		"between tools":      {Package{"internal/tool/email", []string{"internal/tool/github"}}, "internal/tool/email imports internal/tool/github"},
		"of a command":       {Package{"internal/run", []string{"cmd/openagents-runtime"}}, "internal/run imports cmd/openagents-runtime"},
		"out of gen":         {Package{"gen/api", []string{"internal/fault"}}, "gen/api imports internal/fault: generated code imports nothing of ours but gen/*"},
		"unknown room":       {Package{"internal/utils", nil}, "internal/utils has no line in internal/archtest"},
		"outside the house":  {Package{"pkg/lease", nil}, "pkg/lease has no line in internal/archtest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := Forbidden([]Package{c.pkg})
			require.Len(t, wrong, 1)
			require.Contains(t, wrong[0], c.want)
		})
	}
	require.Empty(t, Forbidden([]Package{
		{"internal/lease", []string{"internal/runlog", "gen/db", "internal/crash"}},
		{"internal/tool/email", []string{"internal/tool", "internal/egress"}},
		{"internal/model/builtin", []string{"internal/model"}},
		{"cmd/openagents-runtime", []string{"internal/server"}},
	}))
}

// TestEveryPackageSaysWhatItIsFor wants one sentence, in one file.
func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = append(p.TestGoFiles, p.XTestGoFiles...)
		}
		path := strings.TrimPrefix(p.ImportPath, Module)
		if strings.HasPrefix(path, "gen/") || len(files) == 0 {
			continue
		}
		var docs []string
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			require.NoError(t, err)
			if parsed.Doc != nil {
				docs = append(docs, parsed.Doc.Text())
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s: %d files have a package comment; exactly one says in a sentence what the package does", path, len(docs))
			continue
		}
		begin := "Package " + strings.TrimSuffix(p.Name, "_test") + " "
		if p.Name == "main" {
			begin = "Command " + filepath.Base(p.Dir) + " "
		}
		sentence := new(doc.Package).Synopsis(docs[0])
		if !strings.HasPrefix(sentence, begin) || !strings.HasSuffix(sentence, ".") {
			t.Errorf("%s: the package comment reads %q; write `// %sdoes one thing.`", path, sentence, begin)
		}
	}
}

func TestMachinesAloneWriteInGen(t *testing.T) {
	t.Parallel()
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "gen"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".go", ".yaml", ".php":
		default:
			return nil // forms without comments: the contract check compares every file with what is generated
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(content[:min(len(content), 400)], []byte("DO NOT EDIT.")) && !bytes.Contains(content[:min(len(content), 400)], []byte("DO NOT EDIT\n")) {
			t.Errorf("%s is not marked as generated: code written by hand lives in internal/", path)
		}
		return nil
	}))
}

var queryName = regexp.MustCompile(`(?m)^-- name: (\w+) :`)

// readQueries maps each query's name to its table.
func readQueries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "queries", "*.sql"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	queries := map[string]string{}
	for _, f := range files {
		content, err := os.ReadFile(f)
		require.NoError(t, err)
		table := strings.TrimSuffix(filepath.Base(f), ".sql")
		require.Contains(t, tableOwners, table, "queries/%s.sql has no owner: add it to tableOwners and to docs/architecture.md", table)
		for _, m := range queryName.FindAllSubmatch(content, -1) {
			queries[string(m[1])] = table
		}
	}
	return queries
}

func TestATableIsAskedByItsOwnerOnly(t *testing.T) {
	t.Parallel()
	queries := readQueries(t)
	var calls []Call
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, Module)
		if strings.HasPrefix(path, "gen/") {
			continue
		}
		for _, f := range p.GoFiles {
			calls = append(calls, callsIn(t, path, filepath.Join(p.Dir, f), queries)...)
		}
	}
	require.Empty(t, Trespass(queries, calls))
}

func callsIn(t *testing.T, pkg, file string, queries map[string]string) []Call {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var calls []Call
	ast.Inspect(parsed, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && queries[s.Sel.Name] != "" {
			at := set.Position(s.Pos())
			calls = append(calls, Call{pkg, s.Sel.Name, pkg + "/" + filepath.Base(at.Filename) + ":" + strconv.Itoa(at.Line)})
		}
		return true
	})
	return calls
}

func TestATrespassIsNamed(t *testing.T) {
	t.Parallel()
	queries := map[string]string{"RunLeaseAcquire": "run_leases", "LostGet": "lost"}
	wrong := Trespass(queries, []Call{
		{"internal/lease", "RunLeaseAcquire", "internal/lease/keeper.go:1"},
		{"internal/runtest", "RunLeaseAcquire", "internal/runtest/hold.go:1"},
		{"internal/server", "RunLeaseAcquire", "internal/server/runs.go:7"},
		{"internal/run", "LostGet", "internal/run/run.go:9"},
	})
	require.Len(t, wrong, 2)
	require.Contains(t, wrong[0], "internal/server/runs.go:7: server asks RunLeaseAcquire, but the table run_leases belongs to lease")
	require.Contains(t, wrong[1], "belongs to nobody: add it to tableOwners")
}
