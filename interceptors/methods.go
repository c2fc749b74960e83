package interceptors

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillway-go/spillway/internal/methodkey"
	"github.com/spillway-go/spillway/limiter"
)

// methodTable has the criticality of methods, as "/pkg.Service/Method", and of whole services, as "/pkg.Service/".
type methodTable map[string]limiter.Criticality

// criticality returns what the table says of a method, or Unspecified.
func (t methodTable) criticality(method string) limiter.Criticality {
	if len(t) == 0 {
		return limiter.Unspecified
	}
	if criticality, ok := t[method]; ok {
		return criticality
	}
	return t[method[:strings.LastIndexByte(method, '/')+1]]
}

// add takes over the entries of a table that the user wrote. Of several that are wrong it names the first in
// alphabetical order, so that the error is the same each time.
func (t methodTable) add(entries map[string]limiter.Criticality) error {
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if !methodkey.Valid(key) {
			return fmt.Errorf(`interceptors: WithMethodCriticality: the key %q; want a full method like "/pkg.Service/Method", or "/pkg.Service/*" for all of a service`, key)
		}
		criticality := entries[key]
		if !isLevel(criticality) {
			return fmt.Errorf("interceptors: WithMethodCriticality: the value %d of %q; want %s, or leave the key out", criticality, key, levels)
		}
		t[strings.TrimSuffix(key, "*")] = criticality
	}
	return nil
}

// entries returns what the table says, in the form in which users write it.
func (t methodTable) entries() map[string]limiter.Criticality {
	entries := make(map[string]limiter.Criticality, len(t))
	for key, criticality := range t {
		if strings.HasSuffix(key, "/") {
			key += "*"
		}
		entries[key] = criticality
	}
	return entries
}

// levels are what an option takes for a criticality.
const levels = "one of limiter.Sheddable, SheddablePlus, Critical and CriticalPlus"

func isLevel(c limiter.Criticality) bool {
	return limiter.Sheddable <= c && c <= limiter.CriticalPlus
}
