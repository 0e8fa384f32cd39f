package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/openapi"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// InvalidManifest is the reason code of every ManifestError.
const InvalidManifest = "manifest_validation.invalid_schema"

// ManifestError is one thing that is wrong with a manifest.
type ManifestError struct {
	ReasonCode string `json:"reason_code"`
	Path       string `json:"path"` // a JSON Pointer into the manifest; "" is the whole
	Message    string `json:"message"`
}

// manifests has the schema of each form, by manifest_version.
type manifests struct{ forms map[string]*jsonschema.Schema }

const (
	manifestDocument = "ds.json"
	manifestSchemas  = "/components/schemas/"
	manifestRecord   = "ExtensionManifestV1"
	maxManifestFault = 50
)

// compileManifests reads the forms out of the contract: each definition of the
// manifest's schema that states a manifest_version is one.
func compileManifests() (*manifests, error) {
	var parsed struct {
		Components struct {
			Schemas map[string]any `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(openapi.DS, &parsed); err != nil {
		return nil, fmt.Errorf("read the manifests' schema: %w", err)
	}
	raw, err := json.Marshal(map[string]any{"components": map[string]any{"schemas": parsed.Components.Schemas}})
	if err != nil {
		return nil, fmt.Errorf("read the manifests' schema: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the manifests' schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource(manifestDocument, doc); err != nil {
		return nil, fmt.Errorf("read the manifests' schema: %w", err)
	}
	m := &manifests{forms: map[string]*jsonschema.Schema{}}
	for name, schema := range parsed.Components.Schemas {
		version := stated(schema, "properties", "manifest_version", "const")
		if !strings.HasPrefix(name, manifestRecord) || version == "" {
			continue
		}
		if m.forms[version], err = c.Compile(manifestDocument + "#" + manifestSchemas + name); err != nil {
			return nil, fmt.Errorf("compile %s: %w", name, err)
		}
	}
	return m, nil
}

// Rate is how often the provider of an integration may be asked.
type Rate struct {
	ToolPack  string
	Provider  string
	PerMinute int
}

// RateOf reads the rate in a stored manifest; a manifest that is not active has
// none.
func RateOf(manifest map[string]any) (Rate, bool) {
	if manifest["status"] != "active" {
		return Rate{}, false
	}
	provider, _ := manifest["provider"].(string)
	pack, _ := manifest["tool_pack"].(string)
	rules, _ := manifest["policy"].(map[string]any)
	for _, name := range []string{"max_send_per_minute", "max_requests_per_minute"} {
		if n, ok := rules[name].(float64); ok {
			return Rate{pack, provider, int(n)}, true
		}
	}
	return Rate{}, false
}

// The two names of an integration's id.
const (
	integrationID = "integration_id"
	extensionID   = "extension_id"
)

// stated is the text at the end of some members of members, or "".
func stated(v any, path ...string) string {
	for _, step := range path {
		object, _ := v.(map[string]any)
		v = object[step]
	}
	s, _ := v.(string)
	return s
}

// check answers everything that is wrong with a manifest, by path, and else the
// manifest with its id under both names. A schema cannot say that two members are
// equal, so it is said here.
func (m *manifests) check(manifest map[string]any) (map[string]any, []ManifestError, error) {
	full := maps.Clone(manifest)
	_, has := full[integrationID]
	alias, named := full[extensionID]
	if named && !has {
		full[integrationID] = alias
	}
	wrong, err := m.fit(full)
	if err != nil {
		return nil, nil, err
	}
	if named && !has {
		wrong = slices.DeleteFunc(wrong, func(e ManifestError) bool { return e.Path == "/"+integrationID })
	}
	if named && len(wrong) == 0 && full[integrationID] != alias {
		wrong = append(wrong, ManifestError{InvalidManifest, "/" + extensionID, "must be the integration_id when both are there"})
	}
	full[extensionID] = full[integrationID]
	return full, wrong, nil
}

// fit holds a manifest against its form.
func (m *manifests) fit(manifest map[string]any) ([]ManifestError, error) {
	version, _ := manifest["manifest_version"].(string)
	form := m.forms[version]
	if form == nil {
		return []ManifestError{{InvalidManifest, "/manifest_version",
			"must be one of " + strings.Join(slices.Sorted(maps.Keys(m.forms)), ", ")}}, nil
	}
	raw, err := canon.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("check a manifest: %w", err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("check a manifest: %w", err)
	}
	err = form.Validate(v)
	var invalid *jsonschema.ValidationError
	if err == nil || !errors.As(err, &invalid) {
		return nil, err
	}
	var wrong []ManifestError
	for _, leaf := range leaves(invalid) {
		wrong = append(wrong, misfits(leaf)...)
	}
	slices.SortFunc(wrong, func(a, b ManifestError) int {
		return strings.Compare(a.Path+"\x00"+a.Message, b.Path+"\x00"+b.Message)
	})
	wrong = slices.Compact(wrong)
	return wrong[:min(len(wrong), maxManifestFault)], nil
}

func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	// That an item of a list misses a contains is told by the list.
	if _, ok := e.ErrorKind.(*kind.MinContains); ok {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}

// misfits tells one failure; what is missing and what is too much are told one
// by one, where they belong.
func misfits(e *jsonschema.ValidationError) []ManifestError {
	at := pointer(e.InstanceLocation)
	one := func(path, format string, args ...any) ManifestError {
		return ManifestError{InvalidManifest, path, fmt.Sprintf(format, args...)}
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		var all []ManifestError
		for _, name := range k.Missing {
			all = append(all, one(at+pointer([]string{name}), "is missing"))
		}
		return all
	case *kind.AdditionalProperties:
		var all []ManifestError
		for _, name := range k.Properties {
			all = append(all, one(at+pointer([]string{name}), "is no member of this form"))
		}
		return all
	case *kind.Type:
		return []ManifestError{one(at, "must be %s, not %s", strings.Join(k.Want, " or "), k.Got)}
	case *kind.Enum:
		return []ManifestError{one(at, "must be one of %s", listed(k.Want...))}
	case *kind.Const:
		return []ManifestError{one(at, "must be %s", listed(k.Want))}
	case *kind.Pattern:
		return []ManifestError{one(at, "must match %s", k.Want)}
	case *kind.MinLength:
		return []ManifestError{one(at, "must have %d characters or more", k.Want)}
	case *kind.MaxLength:
		return []ManifestError{one(at, "must have at most %d characters", k.Want)}
	case *kind.Minimum:
		return []ManifestError{one(at, "must be at least %s", k.Want.RatString())}
	case *kind.Maximum:
		return []ManifestError{one(at, "must be at most %s", k.Want.RatString())}
	case *kind.MinItems:
		return []ManifestError{one(at, "must have %d entries or more", k.Want)}
	case *kind.MaxItems:
		return []ManifestError{one(at, "must have at most %d entries", k.Want)}
	case *kind.UniqueItems:
		return []ManifestError{one(at, "must not have an entry twice")}
	case *kind.MinContains:
		return []ManifestError{one(at, "must have %d of the entries that this form requires, not %d", k.Want, len(k.Got))}
	}
	return []ManifestError{one(at, "does not satisfy %s", strings.Join(e.ErrorKind.KeywordPath(), "/"))}
}

func pointer(steps []string) string {
	var at strings.Builder
	for _, step := range steps {
		at.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	return at.String()
}

func listed(values ...any) string {
	raw, err := json.Marshal(values)
	if err != nil {
		return "what the schema lists"
	}
	return strings.Trim(string(raw), "[]")
}

// checkTool refuses a tool spec whose manifest has not its form, and whose
// schemas are none; it answers the spec with the manifest as it is kept.
func (r *Registry) checkTool(spec ds.ToolSpecV1) (ds.ToolSpecV1, error) {
	for _, s := range []struct {
		name   string
		schema map[string]any
	}{{"input_schema", spec.InputSchema}, {"output_schema", spec.OutputSchema}} {
		if err := compiles(s.schema); err != nil {
			return spec, fault.New(api.InvalidRequest, "body /toolSpec/%s: is no JSON Schema 2020-12 that stands for itself", s.name).
				With("pointer", "/toolSpec/"+s.name).Because(err)
		}
	}
	if spec.IntegrationManifest == nil {
		return spec, nil
	}
	full, wrong, err := r.manifests.check(spec.IntegrationManifest)
	if err != nil {
		return spec, err
	}
	if pack, _ := spec.IntegrationManifest["tool_pack"].(string); len(wrong) == 0 && pack != spec.ToolPack {
		wrong = append(wrong, ManifestError{InvalidManifest, "/tool_pack", "must be the tool's own pack, " + spec.ToolPack})
	}
	if len(wrong) == 0 {
		spec.IntegrationManifest = full
		return spec, nil
	}
	return spec, fault.New(api.ManifestInvalid, "the integration manifest has not its form; details.errors says where, as paths in it").
		With("errors", wrong)
}

var errRemote = errors.New("a schema refers to nothing outside of itself")

// noLoader refuses to fetch: a schema says everything itself.
type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errRemote }

func compiles(schema map[string]any) error {
	raw, err := canon.Marshal(schema)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource("tool:schema", doc); err != nil {
		return err
	}
	_, err = c.Compile("tool:schema")
	return err
}
