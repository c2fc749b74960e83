package idempotency

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestKeyOf(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string
		says   string
	}{
		{nil, "", ""},
		{[]string{"a"}, "a", ""},
		{[]string{"order-7/2026~!"}, "order-7/2026~!", ""},
		{[]string{strings.Repeat("k", MaxKey)}, strings.Repeat("k", MaxKey), ""},
		{[]string{strings.Repeat("k", MaxKey+1)}, "", "it has 129 bytes"},
		{[]string{""}, "", "it is empty"},
		{[]string{"a", "a"}, "", "it comes 2 times"},
		{[]string{"a,a"}, "", "it has a ','"},
		{[]string{"a b"}, "", "it has a ' '"},
		{[]string{"a\x00"}, "", `it has a '\x00'`},
		{[]string{"schlüssel"}, "", "it has a 'Ã'"},
	} {
		got, err := keyOf(incoming(t, metadata.MD{Header: c.values}))
		if got != c.want || (err == nil) != (c.says == "") {
			t.Errorf("%q: %q, %v; want %q", c.values, got, err, c.want)
		}
		if err != nil && (status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%q: %v, want INVALID_ARGUMENT and %q", c.values, err, c.says)
		}
	}
	if got, err := keyOf(t.Context()); got != "" || err != nil {
		t.Errorf("outside of gRPC: %q, %v; want nothing", got, err)
	}
}

// Whatever is sent, what is taken for a key is bounded and can be written to a log.
func FuzzKeyOf(f *testing.F) {
	f.Add("order-7", 1)
	f.Add("a,b", 1)
	f.Add("\xff\n", 2)
	f.Fuzz(func(t *testing.T, value string, times int) {
		values := make([]string, max(0, min(times, 3)))
		for i := range values {
			values[i] = value
		}
		key, err := keyOf(incoming(t, metadata.MD{Header: values}))
		switch {
		case err != nil:
			if key != "" || len(err.Error()) > 300 || !utf8.ValidString(err.Error()) {
				t.Errorf("%q: %q, %v", values, key, err)
			}
		case len(values) == 0:
			if key != "" {
				t.Errorf("a key of nothing: %q", key)
			}
		case key != value || len(values) != 1 || len(key) > MaxKey || strings.ContainsAny(key, ", \n\x00"):
			t.Errorf("%q: %q", values, key)
		}
	})
}

func TestContextWithKey(t *testing.T) {
	outer := metadata.AppendToOutgoingContext(t.Context(), "other", "stays")
	first := ContextWithKey(outer, "first")
	second := ContextWithKey(first, "second")
	for name, c := range map[string]struct {
		ctx  context.Context
		want []string
	}{
		"outer":           {outer, nil},
		"first":           {first, []string{"first"}},
		"in its place":    {second, []string{"second"}},
		"without a start": {ContextWithKey(t.Context(), "first"), []string{"first"}},
	} {
		md, _ := metadata.FromOutgoingContext(c.ctx)
		if got := md.Get(Header); strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if name != "without a start" && len(md.Get("other")) != 1 {
			t.Errorf("%s: other metadata is %q, want it kept", name, md.Get("other"))
		}
	}
}

func TestNewKey(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		key := NewKey()
		if got, err := keyOf(incoming(t, metadata.Pairs(Header, key))); got != key || err != nil || seen[key] {
			t.Fatalf("%q: %q, %v, seen before: %v", key, got, err, seen[key])
		}
		seen[key] = true
	}
}
