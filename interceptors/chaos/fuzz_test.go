package chaos

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// Whatever a file or an operator says: what starts has a blast radius, and what has none does not start.
func FuzzStart(f *testing.F) {
	f.Add(uint8(Error), uint32(codes.Unavailable), int64(0), .01, "/a.B/*", int64(time.Minute), int64(0), false)
	f.Add(uint8(Drop), uint32(0), int64(0), 1., AllMethods, int64(time.Minute), int64(time.Hour), true)
	f.Add(uint8(Delay), uint32(0), int64(time.Second), 1., "/grpc.health.v1.Health/Check", int64(-1), int64(1)<<62, false)
	f.Fuzz(func(t *testing.T, kind uint8, code uint32, delay int64, share float64, method string, length, from int64, all bool) {
		s := newServer(t)
		defer s.Stop()
		now := time.Now()
		fault := Fault{Kind: Kind(kind), Code: codes.Code(code), Delay: time.Duration(delay), Share: share,
			Methods: []string{method}, AllCalls: all, For: time.Duration(length), From: now.Add(time.Duration(from))}
		if err := s.Start(fault); err != nil {
			if s.Faults() != nil {
				t.Errorf("an error, and in force: %+v", s.Faults())
			}
			return
		}
		for _, in := range s.Faults() { // none, if its end was a moment ahead
			if length := in.Until.Sub(in.From); length <= 0 || length > MaxLength || !in.Until.After(now) {
				t.Errorf("on from %v to %v at %v", in.From, in.Until, now)
			}
			if !(in.Share > 0 && in.Share <= 1) || in.Share == 1 && method == AllMethods && !all || untouched(method) {
				t.Errorf("started with a share of %v of %q", in.Share, method)
			}
		}
	})
}
