package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// routes finds the operation of a request. Paths are taken as they were sent:
// nothing is cleaned, unescaped into another route or redirected, because the
// caller's token is bound to the path.
type routes struct{ all []route }

type route struct {
	op       api.Operation
	segments []string
	handler  http.Handler
}

// HandleFunc takes an operation's generated handler.
func (rs *routes) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	ops := api.Operations()
	i := slices.IndexFunc(ops, func(o api.Operation) bool { return o.Pattern() == pattern })
	if i < 0 {
		panic("server: the contract has no operation " + pattern)
	}
	rs.all = append(rs.all, route{ops[i], strings.Split(ops[i].Path, "/"), http.HandlerFunc(handler)})
}

// ServeHTTP completes the generated interface; the door finds routes itself.
func (rs *routes) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("server: a request came past the door")
}

// find returns the request's route and sets its path values, or says that there
// is none, or none for the method.
func (rs *routes) find(r *http.Request) (route, error) {
	sent := strings.Split(r.URL.EscapedPath(), "/")
	var allowed []string
	for _, candidate := range rs.all {
		values, ok := match(candidate.segments, sent)
		if !ok {
			continue
		}
		if candidate.op.Method != r.Method {
			allowed = append(allowed, candidate.op.Method)
			continue
		}
		for name, value := range values {
			r.SetPathValue(name, value)
		}
		return candidate, nil
	}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		return route{}, fault.New(api.MethodNotAllowed, "this path takes %s only", strings.Join(allowed, " and ")).
			With("allow", allowed)
	}
	return route{}, fault.New(api.RouteNotFound, "no operation has this path; the contract lists them all")
}

func match(template, sent []string) (map[string]string, bool) {
	if len(template) != len(sent) {
		return nil, false
	}
	values := map[string]string{}
	for i, want := range template {
		name, isParameter := strings.CutPrefix(want, "{")
		if !isParameter {
			if want != sent[i] {
				return nil, false
			}
			continue
		}
		value, err := url.PathUnescape(sent[i])
		if err != nil || value == "" {
			return nil, false
		}
		values[strings.TrimSuffix(name, "}")] = value
	}
	return values, true
}
