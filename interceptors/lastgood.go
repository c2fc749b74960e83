package interceptors

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// LastGood keeps the last good answers of unary calls, for [WithLastGood]. It is safe for concurrent use, and may serve
// several methods and clients.
type LastGood struct {
	maxAge   time.Duration
	maxBytes int
	key      func(ctx context.Context, req any) string

	mu      sync.Mutex
	answers map[[sha256.Size]byte]*list.Element
	recent  list.List // of *lastGood, the latest used first
	bytes   int
}

// lastGood is one answer.
type lastGood struct {
	key    [sha256.Size]byte
	answer []byte
	kept   time.Time
}

// lastGoodOverhead is about what an answer takes besides its bytes.
const lastGoodOverhead = 256

// NewLastGood returns a store for answers that are given again until they are maxAge old. It takes about maxBytes of
// memory at most: those that were not used for longest make room. key tells requests apart that have different answers;
// nil stands for the bytes of the message. Where the answer also depends on who asks, the key has to say who: otherwise
// one caller gets what is another's. The method is always part of the key. It rejects a maxAge and maxBytes that are not
// positive.
func NewLastGood(maxAge time.Duration, maxBytes int, key func(ctx context.Context, req any) string) (*LastGood, error) {
	if maxAge <= 0 || maxBytes <= 0 {
		return nil, fmt.Errorf("interceptors: NewLastGood(%v, %d); want an age and a size above 0", maxAge, maxBytes)
	}
	if key == nil {
		key = messageKey
	}
	return &LastGood{maxAge: maxAge, maxBytes: maxBytes, key: key, answers: map[[sha256.Size]byte]*list.Element{}}, nil
}

// WithLastGood is a [WithFallback] that gives the last good answer to the same request, where there is one that is not
// too old: otherwise the caller sees the error. It costs encoding each request and each answer once more. Only protobuf
// messages are kept, and no request with an empty key. The same store may go to [Client.SetOptions] again.
func WithLastGood(method string, l *LastGood) ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		if err := notNil("WithLastGood", "a store from NewLastGood", l); err != nil {
			return err
		}
		return p.fallbacks.add("WithLastGood", method, fallback{answer: l.give, keep: l.keep})
	})
}

// messageKey is the message itself.
func messageKey(_ context.Context, req any) string {
	m, ok := req.(proto.Message)
	if !ok {
		return ""
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return ""
	}
	return "m" + string(raw) // an empty message is one, too
}

// sum returns what a request is known by. Of what it is made, the method has no NUL.
func (l *LastGood) sum(ctx context.Context, method string, req any) (_ [sha256.Size]byte, ok bool) {
	key := l.key(ctx, req)
	return sha256.Sum256([]byte(method + "\x00" + key)), key != ""
}

func (l *LastGood) keep(ctx context.Context, method string, req, reply any) {
	m, ok := reply.(proto.Message)
	if !ok {
		return
	}
	key, ok := l.sum(ctx, method, req)
	if !ok {
		return
	}
	answer, err := proto.Marshal(m)
	if err != nil || len(answer)+lastGoodOverhead > l.maxBytes {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.answers[key]; known != nil {
		l.drop(known)
	}
	l.answers[key] = l.recent.PushFront(&lastGood{key, answer, now})
	l.bytes += len(answer) + lastGoodOverhead
	for l.bytes > l.maxBytes {
		l.drop(l.recent.Back())
	}
}

// drop forgets an answer. The caller holds mu.
func (l *LastGood) drop(e *list.Element) {
	old := l.recent.Remove(e).(*lastGood)
	delete(l.answers, old.key)
	l.bytes -= len(old.answer) + lastGoodOverhead
}

func (l *LastGood) give(ctx context.Context, method string, req, reply any, cause error) error {
	m, ok := reply.(proto.Message)
	if !ok {
		return cause
	}
	key, ok := l.sum(ctx, method, req)
	if !ok {
		return cause
	}
	answer, ok := l.find(key, time.Now())
	if !ok {
		return cause
	}
	if err := proto.Unmarshal(answer, m); err != nil {
		return cause
	}
	return nil
}

// find returns the bytes of an answer, which are never changed.
func (l *LastGood) find(key [sha256.Size]byte, now time.Time) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.answers[key]
	if known == nil {
		return nil, false
	}
	old := known.Value.(*lastGood)
	if now.Sub(old.kept) > l.maxAge {
		l.drop(known)
		return nil, false
	}
	l.recent.MoveToFront(known)
	return old.answer, true
}
