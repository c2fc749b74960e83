package interceptors

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"
)

// The metadata read is that of gRPC itself, not a copy, so that a gRPC that keeps it in another way shows here: it
// would still be read, but copied.
func TestIncomingIsNotACopy(t *testing.T) {
	var i incoming
	sent := metadata.Pairs("a", "1")
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(metadata.NewIncomingContext(t.Context(), sent), key{}, 1))
	defer cancel()
	got := i.metadata(ctx)
	sent["b"] = []string{"2"}
	if len(got["b"]) != 1 {
		t.Errorf("%v, want what was sent, uncopied: %v", map[string][]string(got), map[string][]string(sent))
	}
	for range 100 { // what was found is not kept for the next request
		if md := i.metadata(t.Context()); md != nil {
			t.Fatalf("%v without a request, want nil", md)
		}
		i.metadata(ctx)
	}
	if n := testing.AllocsPerRun(1000, func() { i.metadata(ctx) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
