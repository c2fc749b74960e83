// Package methodkey knows how users name the methods that an option is for.
package methodkey

import "strings"

// Valid reports whether a key is a full method, such as "/pkg.Service/Method", or "/pkg.Service/*" for all of a service.
func Valid(key string) bool {
	service, method, found := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	return found && key[0] == '/' && service != "" && method != "" && !strings.ContainsAny(service, "* \t\n") &&
		(method == "*" || !strings.ContainsAny(method, "*/ \t\n"))
}
