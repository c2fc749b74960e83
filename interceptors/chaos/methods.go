package chaos

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-go/spillway/internal/methodkey"
)

// methods are those of a fault, as "/pkg.Service/Method", and "/pkg.Service/" and "/" for all of them.
type methods map[string]struct{}

func newMethods(names []string) methods {
	m := make(methods, len(names))
	for _, name := range names {
		m[strings.TrimSuffix(name, "*")] = struct{}{}
	}
	return m
}

func (m methods) match(method string) bool {
	_, ok := m[method]
	if !ok {
		_, ok = m[method[:strings.LastIndexByte(method, '/')+1]]
	}
	if !ok {
		_, ok = m["/"]
	}
	return ok
}

func hasAll(names []string) bool { return slices.Contains(names, AllMethods) }

// untouched reports whether a method, or a key of [Fault].Methods, is of gRPC's health or reflection services.
func untouched(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

const wantMethods = `"/pkg.Service/Method", "/pkg.Service/*" for all of a service, or chaos.AllMethods`

func (f *Fault) checkMethods() error {
	if f.Matcher == nil && len(f.Methods) == 0 {
		return fmt.Errorf("no methods; want Methods with %s, or a Matcher", wantMethods)
	}
	if f.Matcher != nil && len(f.Methods) > 0 {
		return fmt.Errorf("both Methods and a Matcher; want one of them")
	}
	for _, name := range f.Methods {
		if untouched(name) {
			return fmt.Errorf("the method %q; leave it out, gRPC's health and reflection services are never hit", name)
		}
		if name != AllMethods && !methodkey.Valid(name) {
			return fmt.Errorf("the method %q; want %s", name, wantMethods)
		}
	}
	return nil
}
