package interceptors

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/internal/methodkey"
)

// FallbackFunc answers a unary call in place of its callee: it fills in reply and returns nil, or returns the error that
// the caller is to see, such as cause. fullMethod is like "/package.Service/Method". cause says why it is asked, by its
// code, and errors.Is with [ErrNotSent] and limiter.ErrRefused. Where the call's time has run out, ctx has ended. It may
// be called by many goroutines at once.
type FallbackFunc func(ctx context.Context, fullMethod string, req, reply any, cause error) error

// WithFallback answers the unary calls of a method, "/pkg.Service/Method", or of all those of a service that have no
// fallback of their own, "/pkg.Service/*", where there is no answer: they were refused, by the callee or here
// (RESOURCE_EXHAUSTED), the callee is broken (UNAVAILABLE, INTERNAL, UNKNOWN), or late (DEADLINE_EXCEEDED). A call that its
// caller cancelled, and an answer such as NOT_FOUND, is left alone. The default is that the caller sees the error.
// [NewClient] rejects nil, names of another form, and a second fallback for the same name.
func WithFallback(method string, f FallbackFunc) ClientOption {
	return clientOptionFunc(func(p *clientPolicy) error {
		if err := notNil("WithFallback", "a function", f); err != nil {
			return err
		}
		return p.fallbacks.add("WithFallback", method, fallback{answer: f})
	})
}

type fallback struct {
	answer FallbackFunc
	keep   func(ctx context.Context, fullMethod string, req, reply any) // what was answered; nil: nothing is kept
}

// fallbacks are by full method, "/pkg.Service/Method", and by service, "/pkg.Service/".
type fallbacks map[string]fallback

func (f fallbacks) add(option, method string, fallback fallback) error {
	if !methodkey.Valid(method) {
		return fmt.Errorf(`interceptors: %s(%q); want a full method like "/pkg.Service/Method", or "/pkg.Service/*" for all of a service`, option, method)
	}
	key := strings.TrimSuffix(method, "*")
	if _, known := f[key]; known {
		return fmt.Errorf("interceptors: %s(%q): it has a fallback already; want one", option, method)
	}
	f[key] = fallback
	return nil
}

// settle returns what the caller of a call sees that ended with err.
func (f fallbacks) settle(ctx context.Context, c *callee, method string, req, reply any, err error) error {
	if len(f) == 0 {
		return err
	}
	fallback, ok := f[method]
	if !ok {
		fallback, ok = f[method[:strings.LastIndexByte(method, '/')+1]]
	}
	switch {
	case !ok:
		return err
	case err == nil:
		if fallback.keep != nil {
			fallback.keep(ctx, method, req, reply)
		}
		return nil
	case !isNoAnswer(err):
		return err
	}
	if err = fallback.answer(ctx, method, req, reply, err); err == nil {
		c.fallbacks.Add(1)
	}
	return err
}

// isNoAnswer reports whether an error says nothing of what was asked for.
func isNoAnswer(err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted, codes.Unavailable, codes.Internal, codes.Unknown, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}
