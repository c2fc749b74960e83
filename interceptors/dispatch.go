package interceptors

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"

	"github.com/spillway-go/spillway/limiter"
)

// dispatch is a call on its way through gRPC, where each attempt of it goes to a backend. It is in the context, so that
// the load balancing finds it there. A hedge is one of its own.
type dispatch struct {
	call  *call
	hedge bool

	mu      sync.Mutex
	looked  bool     // for a backend, by [BackendPolicy]; else backends are not told apart
	sent    bool     // an attempt was, and has ended
	backend *backend // of the last attempt
	refusal *notSent // no backend would take the next
	failure error    // of the last attempt that failed
	open    sending  // that ended without a word on how; the call's end says it
	probing bool     // the last attempt is a probe
	closed  bool     // there is nobody left who would take back

	handover limiter.Handover
}

type dispatchKey struct{}

// sending is an attempt that was sent, and not judged yet.
type sending struct {
	to    *standing // nil: there is none
	began time.Time
	probe bool // of the breaker
	asked bool // whether the callee holds its load
}

// looks takes in that backends are looked at for an attempt.
func (d *dispatch) looks(now time.Time) {
	if apart := &d.call.callee.apart; !apart.Load() {
		apart.Store(true)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked = true
	d.drop(now)
}

// drop is for an attempt that was followed by another: gRPC knows why, and does not say.
func (d *dispatch) drop(now time.Time) {
	if d.open.to != nil {
		d.open.to.breaker.end(now, d.open.probe, unclear, nil)
		d.open = sending{}
	}
}

// at returns where the last attempt went to.
func (d *dispatch) at() *backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.backend
}

// isApart reports whether backends are told apart.
func (d *dispatch) isApart() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.looked
}

// isProbe reports whether the last attempt is one.
func (d *dispatch) isProbe() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.probing
}

// goes takes in that an attempt goes to a backend.
func (d *dispatch) goes(b *backend, probe bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backend, d.probing, d.refusal = b, probe, nil
}

// stays takes in that no backend takes the next attempt.
func (d *dispatch) stays(refusal *notSent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refusal = refusal
}

// ends takes in what gRPC says of the end of an attempt.
//
// Without an error it may have ended well, or before all of the request was sent: then the error comes with the end of
// the call.
func (d *dispatch) ends(a sending, info balancer.DoneInfo) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.takeBack()
	switch {
	case !info.BytesSent: // the backend has not heard of it
		a.to.breaker.end(now, a.probe, unclear, nil)
		d.failure = info.Err
	case info.Err == nil:
		d.drop(now)
		d.sent, d.open = true, a
	default:
		d.sent, d.failure = true, info.Err
		n, _ := parseNews(info.Trailer)
		d.call.judge(a, now, info.Err, n)
	}
}

// end takes in how the call ended and what its callee said of its load, and returns the error that its caller gets. A
// refusal says that it was never sent.
func (d *dispatch) end(err error, n news) (refusal *notSent, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open.to != nil {
		d.call.judge(d.open, time.Now(), err, n)
		d.open = sending{}
	}
	switch {
	case d.refusal == nil || !errors.Is(err, d.refusal):
		return nil, err
	case !d.sent:
		return d.refusal, err
	case d.failure == nil:
		return nil, err
	default: // no backend takes the next try, but one was sent
		return nil, d.failure
	}
}
