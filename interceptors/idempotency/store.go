package idempotency

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// ID is what a claim and an answer belong to. No part of it is empty.
type ID struct {
	Method string // like "/package.Service/Method"
	Caller string // as the server's [CallerFunc] says
	Key    string // as the caller says
}

// Fingerprint tells requests with the same ID apart.
type Fingerprint [sha256.Size]byte

// Store keeps claims and answers. All servers that a repeat can reach must share one. [Memory] is for a single server;
// examples/idempotency has one for SQL databases. It is safe for concurrent use.
type Store interface {
	// Claim returns, without waiting for anybody else's work, one of three things. Where nobody holds the ID it is a
	// claim, which nobody else gets until the lease has ended; which of several at the same time gets it, the store
	// decides. Where there is an answer, it is that. Else it is an error: [ErrHeld], [ErrMismatch], [ErrFull], or another
	// if the store fails.
	Claim(ctx context.Context, id ID, of Fingerprint, lease time.Duration) (Claim, []byte, error)
}

// Claim is the right to work on a request. One of its methods is called, at most once, or none if its holder dies: then
// it ends with its lease.
type Claim interface {
	// Put ends the claim with an answer. It returns nil only when the answer is stored, to be returned for as long as the
	// store keeps answers; [ErrLost] when the claim has ended before; and [ErrFull] when there is no room for an answer
	// of that size: then the claim is still held, and Put may be called again with a smaller one.
	Put(ctx context.Context, answer []byte) error

	// Release ends the claim without an answer, so that the next one gets it at once. To release a claim that has ended
	// is no error.
	Release(ctx context.Context) error
}

// The errors of stores, to be found by [errors.Is].
var (
	ErrHeld     = errors.New("idempotency: somebody else works on it")
	ErrMismatch = errors.New("idempotency: the key is that of another request")
	ErrLost     = errors.New("idempotency: the claim has ended")
	ErrFull     = errors.New("idempotency: there is no room")
)
