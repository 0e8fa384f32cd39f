package check

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

// Where the fixtures of events and DS schemas lie.
const (
	EventFixtures = "openapi/fixtures/events"
	DSFixtures    = "schemas/ds/fixtures"
)

var versioned = regexp.MustCompile(`\.v[0-9]+\.json$`)

// Fixtures wants a stored example of every event type and version, every DS
// record and every signature, each one valid, and none left over.
func Fixtures(c Contract) ([]Finding, error) {
	events, err := newValidator(c.Bundles.Events)
	if err != nil {
		return nil, err
	}
	ds, err := newValidator(c.Bundles.DS)
	if err != nil {
		return nil, err
	}
	f := &fixturer{collector: collector{check: "fixtures"}, c: c, known: map[string]bool{}}
	types, err := gogen.Events(c.Events)
	if err != nil {
		return nil, err
	}
	for _, e := range types {
		file := fmt.Sprintf("%s/%s.v%d.json", EventFixtures, e.Type, e.Version)
		value := f.read(file, fmt.Sprintf("event %s version %d", e.Type, e.Version), "one payload as it is stored")
		f.fits(events, file, bundle.Camel(e.Type)+fmt.Sprintf("V%d", e.Version), "", value)
	}
	for _, r := range c.RecordTypes() {
		if r.Go == "SignatureContractV1" {
			f.signatureFiles(ds, r.Go)
			continue
		}
		file := DSFixtures + "/" + path.Base(r.File.Path)
		f.fits(ds, file, r.Go, "", f.read(file, "DS record "+path.Base(r.File.Path), "one record as it is stored"))
	}
	for _, s := range c.Signatures {
		f.signature(ds, s)
	}
	f.leftovers(EventFixtures)
	f.leftovers(DSFixtures)
	return f.found, f.failure
}

type fixturer struct {
	collector
	c       Contract
	known   map[string]bool
	failure error
}

// read loads one fixture; a missing or broken one is a finding and nil.
func (f *fixturer) read(file, what, content string) any {
	f.known[file] = true
	raw, err := os.ReadFile(filepath.Join(f.c.Root, filepath.FromSlash(file)))
	if errors.Is(err, fs.ErrNotExist) {
		f.found = append(f.found, Finding{f.check, file, 0, what + " has no fixture", "write " + file + ": " + content})
		return nil
	}
	if err != nil {
		f.failure = fmt.Errorf("read fixture: %w", err)
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		f.found = append(f.found, Finding{f.check, file, 0, "the fixture is not JSON: " + err.Error(), "correct the file"})
		return nil
	}
	return value
}

// fits checks a value against a component of a bundle.
func (f *fixturer) fits(v *validator, file, component, member string, value any) {
	if value == nil {
		return
	}
	wrong, err := v.validate("/components/schemas/"+component, value)
	if err != nil {
		f.failure = err
		return
	}
	if wrong != "" {
		if member != "" {
			member = "member " + member + " "
		}
		f.found = append(f.found, Finding{f.check, file, 0, fmt.Sprintf("the fixture %sdoes not fit %s: %s", member, component, wrong),
			"correct the fixture; a released schema stays as it is, and what must change becomes a new version"})
	}
}

// signatureFiles are the fixtures of the form that they all follow.
func (f *fixturer) signatureFiles(v *validator, component string) {
	for _, s := range f.c.Signatures {
		value, err := plainJSON(bundle.Value(s.Node))
		if err != nil {
			f.failure = err
			return
		}
		f.fits(v, s.Path, component, "", value)
	}
}

// signature wants {"input", "output"} and, when it is there, a receipt that fits.
func (f *fixturer) signature(v *validator, s *bundle.File) {
	base := path.Base(s.Path)
	file := DSFixtures + "/" + base
	value := f.read(file, "signature "+base, `an object with "input" and "output", as one call of it has them`)
	if value == nil {
		return
	}
	name := strings.TrimSuffix(base, ".json")
	component := bundle.Camel(name[:strings.LastIndex(name, ".v")]) + "V" + name[strings.LastIndex(name, ".v")+2:]
	members, _ := value.(map[string]any)
	for _, side := range []string{"input", "output"} {
		part, ok := members[side]
		if !ok {
			f.found = append(f.found, Finding{f.check, file, 0, "the fixture has no member " + side, "add what one call has as its " + side})
			continue
		}
		f.fits(v, file, component+bundle.Camel(side), side, part)
	}
	if receipt, ok := members["receipt"]; ok {
		f.fits(v, file, "PredictReceiptV1", "receipt", receipt)
	}
}

// leftovers finds versioned fixtures whose schema is gone.
func (f *fixturer) leftovers(dir string) {
	entries, err := os.ReadDir(filepath.Join(f.c.Root, filepath.FromSlash(dir)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.failure = fmt.Errorf("list fixtures: %w", err)
		return
	}
	for _, e := range entries {
		file := dir + "/" + e.Name()
		if versioned.MatchString(e.Name()) && !f.known[file] {
			f.found = append(f.found, Finding{f.check, file, 0, "the fixture belongs to no schema",
				"put its schema back: what was stored is read for ever; remove the fixture only if the schema was never released"})
		}
	}
}
