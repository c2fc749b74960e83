package chaos

import (
	"fmt"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc/codes"
)

// Fault is what goes wrong, for whom and how long. Kind, the methods, Share and an end have to be said: they have no
// defaults.
type Fault struct {
	Kind  Kind
	Delay time.Duration `json:",omitzero"` // of kind Delay: how much later the call goes on; above 0
	Code  codes.Code    `json:",omitzero"` // of kind Error: the status code of the answer; not OK
	Hold  time.Duration `json:",omitzero"` // of kind Drop: how long a call without a deadline gets no answer; 0 is [DefaultHold]

	// Share is how many of the calls of the methods are hit, above 0 and at most 1. Which, [WithSeed] says.
	Share float64

	// The methods that it may hit: Methods are full methods, "/pkg.Service/Method", all of a service, "/pkg.Service/*",
	// or [AllMethods]. A Matcher selects them in place of Methods: it is asked for each call while the fault is on, and
	// must be safe for concurrent use.
	Methods []string         `json:",omitzero"`
	Matcher selector.Matcher `json:"-"`

	// AllCalls says that a Share of 1 over [AllMethods], or over a Matcher, into which nobody can look, is meant.
	AllCalls bool `json:",omitzero"`

	// The time in which it is on: from From, of which the zero value is now, until Until or for the time For. One of the
	// two has to be given, and it is at most [MaxLength] after From.
	From  time.Time     `json:",omitzero"`
	Until time.Time     `json:",omitzero"`
	For   time.Duration `json:",omitzero"`
}

const (
	// AllMethods in [Fault].Methods stands for all methods but those of gRPC's health and reflection services.
	AllMethods = "/*"

	// DefaultHold is how long a dropped call without a deadline gets no answer, if Hold does not say.
	DefaultHold = time.Minute

	// MaxLength is how long a fault lasts at most. A game has an end; one that goes on is started again.
	MaxLength = 24 * time.Hour

	// MaxFaults is how many faults can be in force together.
	MaxFaults = 16
)

// check returns what is wrong with a fault that is to be put in force now, and what would be right.
func (f *Fault) check(now time.Time, at side) error {
	if err := f.checkKind(at); err != nil {
		return err
	}
	if err := f.checkMethods(); err != nil {
		return err
	}
	if err := f.checkShare(); err != nil {
		return err
	}
	return f.checkTime(now)
}

func (f *Fault) checkKind(at side) error {
	switch {
	case !f.Kind.known():
		return fmt.Errorf("%v; want %s", f.Kind, kinds)
	case f.Kind == Panic && at == clientSide:
		return fmt.Errorf("the Kind panic at a client; want another, panics are for servers")
	case f.Kind == Delay && f.Delay <= 0:
		return fmt.Errorf("a Delay of %v; want more than 0", f.Delay)
	case f.Kind != Delay && f.Delay != 0:
		return fmt.Errorf("a Delay of %v; want none, or the Kind chaos.Delay", f.Delay)
	case f.Kind == Error && (f.Code == codes.OK || f.Code > codes.Unauthenticated):
		return fmt.Errorf("the Code %v; want a code of gRPC's that is not OK", f.Code)
	case f.Kind != Error && f.Code != codes.OK:
		return fmt.Errorf("the Code %v; want none, or the Kind chaos.Error", f.Code)
	case f.Kind == Drop && f.Hold < 0:
		return fmt.Errorf("a Hold of %v; want more than 0, or 0 for %v", f.Hold, DefaultHold)
	case f.Kind != Drop && f.Hold != 0:
		return fmt.Errorf("a Hold of %v; want none, or the Kind chaos.Drop", f.Hold)
	}
	return nil
}

func (f *Fault) checkShare() error {
	if !(f.Share > 0 && f.Share <= 1) { // nor NaN
		return fmt.Errorf("a Share of %v; want more than 0 and at most 1", f.Share)
	}
	everything := f.Share == 1 && (f.Matcher != nil || hasAll(f.Methods))
	if everything && !f.AllCalls {
		return fmt.Errorf("a Share of 1 over all methods, or over a Matcher that may select them; want AllCalls too, if every call is meant")
	}
	if f.AllCalls && !everything {
		return fmt.Errorf("the flag AllCalls with a Share of %v of some methods; leave it out, it is for a Share of 1 over all", f.Share)
	}
	return nil
}

func (f *Fault) checkTime(now time.Time) error {
	if f.For == 0 && f.Until.IsZero() {
		return fmt.Errorf("no end; want For or Until")
	}
	if f.For != 0 && !f.Until.IsZero() {
		return fmt.Errorf("two ends, For %v and Until %s; want one of them", f.For, f.Until.Format(time.RFC3339))
	}
	if f.For < 0 {
		return fmt.Errorf("a length For %v; want more than 0", f.For)
	}
	from, until := f.window(now)
	switch length := until.Sub(from); {
	case !until.After(now):
		return fmt.Errorf("an end at %s, which has passed; want a later one", until.Format(time.RFC3339))
	case length <= 0:
		return fmt.Errorf("a start at %s and an end at %s; want From before Until", from.Format(time.RFC3339), until.Format(time.RFC3339))
	case length > MaxLength:
		return fmt.Errorf("a length of %v; want at most %v, and to start it again", length, MaxLength)
	}
	return nil
}

// window returns when the fault is on, for one that is put in force now.
func (f *Fault) window(now time.Time) (from, until time.Time) {
	from, until = f.From, f.Until
	if from.IsZero() {
		from = now
	}
	if until.IsZero() {
		until = from.Add(f.For)
	}
	return from, until
}
