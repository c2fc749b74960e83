package idempotency

import (
	"context"
	"crypto/rand"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Header is the request metadata that carries the key: 1 to [MaxKey] characters of visible ASCII, without commas.
const Header = "spillway-idempotency-key"

// MaxKey is the length of the longest key, in bytes.
const MaxKey = 128

// ContextWithKey returns a context whose calls carry the key, in place of one that ctx may carry. Use it for one call and
// its repeats: to the server, another call of the same method with the same key is a repeat, and with another message an
// error. What a server calls for a request does not inherit the request's key. A key that cannot be read is rejected by
// the server, or by gRPC where it could not even be sent.
func ContextWithKey(ctx context.Context, key string) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(Header, key)
	return metadata.NewOutgoingContext(ctx, md)
}

// NewKey returns a random key that nobody can guess. Whoever repeats a call after a restart has to write the key down
// before the first try.
func NewKey() string { return rand.Text() }

// keyOf returns the key that came with a request, "" for none, or the status for one that cannot be read.
func keyOf(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, Header)
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", malformed("it comes %d times", len(values))
	case values[0] == "":
		return "", malformed("it is empty")
	case len(values[0]) > MaxKey:
		return "", malformed("it has %d bytes", len(values[0]))
	}
	for i := range len(values[0]) {
		if c := values[0][i]; c <= ' ' || c > '~' || c == ',' { // proxies join doubled headers with commas
			return "", malformed("it has a %q", c)
		}
	}
	return values[0], nil
}

func malformed(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument,
		"spillway: the key in %s cannot be read: %s; want 1 to %d visible characters, without commas", Header, fmt.Sprintf(format, args...), MaxKey)
}
