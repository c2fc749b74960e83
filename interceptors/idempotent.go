package interceptors

import "strings"

// idempotent are the methods that may be called twice, and, without a method, whole services.
type idempotent map[methodName]bool

func newIdempotent(names []methodName) idempotent {
	set := make(idempotent, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// has reports whether a full method, "/pkg.Service/Method", may be called twice.
func (i idempotent) has(fullMethod string) bool {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return i[methodName{service, method}] || i[methodName{Service: service}]
}
