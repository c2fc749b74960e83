package chaos

import (
	"context"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc/codes"
)

func newServer(t *testing.T, opts ...Option) *Server {
	t.Helper()
	s, err := NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBadOptions(t *testing.T) {
	for _, opts := range [][]Option{{nil}, {WithSeed(1), nil}, {WithMeterProvider(nil)}} {
		_, server := NewServer(opts...)
		_, client := NewClient(opts...)
		for _, err := range []error{server, client} {
			if err == nil || !strings.HasPrefix(err.Error(), "chaos: ") || !strings.Contains(err.Error(), "leave") {
				t.Errorf("%d options, one of them nil: %v, want an error that says to leave it out", len(opts), err)
			}
		}
	}
}

// good is a fault with all that has to be said.
func good() Fault {
	return Fault{Kind: Error, Code: codes.Unavailable, Share: .01, Methods: []string{"/a.B/*"}, For: time.Minute}
}

// Each error names what is wrong, and what would be right, and what was in force stays.
func TestBadFaults(t *testing.T) {
	any := selector.MatchFunc(func(context.Context, middleware.CallMeta) bool { return true })
	for _, c := range []struct {
		spoil       func(*Fault)
		wrong, want string
	}{
		{func(f *Fault) { f.Kind = 0 }, "Kind(0)", "chaos.Delay, Error, Drop or Panic"},
		{func(f *Fault) { f.Kind = 77 }, "Kind(77)", "chaos.Delay"},
		{func(f *Fault) { f.Kind, f.Code = Delay, 0 }, "a Delay of 0s", "more than 0"},
		{func(f *Fault) { f.Kind, f.Code, f.Delay = Delay, 0, -1 }, "a Delay of -1ns", "more than 0"},
		{func(f *Fault) { f.Delay = time.Second }, "a Delay of 1s", "chaos.Delay"},
		{func(f *Fault) { f.Code = codes.OK }, "the Code OK", "not OK"},
		{func(f *Fault) { f.Code = 17 }, "the Code Code(17)", "a code of gRPC's"},
		{func(f *Fault) { f.Kind = Panic }, "the Code Unavailable", "chaos.Error"},
		{func(f *Fault) { f.Kind, f.Code, f.Hold = Drop, 0, -time.Second }, "a Hold of -1s", "0 for 1m0s"},
		{func(f *Fault) { f.Hold = time.Second }, "a Hold of 1s", "chaos.Drop"},

		{func(f *Fault) { f.Share = 0 }, "a Share of 0", "more than 0 and at most 1"},
		{func(f *Fault) { f.Share = -.1 }, "a Share of -0.1", "more than 0"},
		{func(f *Fault) { f.Share = 1.1 }, "a Share of 1.1", "at most 1"},
		{func(f *Fault) { f.Share = 100 }, "a Share of 100", "at most 1"},
		{func(f *Fault) { f.Share = math.NaN() }, "a Share of NaN", "at most 1"},

		{func(f *Fault) { f.Methods = nil }, "no methods", "a Matcher"},
		{func(f *Fault) { f.Methods = []string{} }, "no methods", "chaos.AllMethods"},
		{func(f *Fault) { f.Matcher = any }, "both Methods and a Matcher", "one of them"},
		{func(f *Fault) { f.Methods = []string{"/a.B/C", "a.B/C"} }, `"a.B/C"`, `"/pkg.Service/Method"`},
		{func(f *Fault) { f.Methods = []string{""} }, `""`, `"/pkg.Service/*"`},
		{func(f *Fault) { f.Methods = []string{"*"} }, `"*"`, "chaos.AllMethods"},
		{func(f *Fault) { f.Methods = []string{"/"} }, `"/"`, "chaos.AllMethods"},
		{func(f *Fault) { f.Methods = []string{"/*/*"} }, `"/*/*"`, "chaos.AllMethods"},
		{func(f *Fault) { f.Methods = []string{"/a.B/C*"} }, `"/a.B/C*"`, `"/pkg.Service/*"`},
		{func(f *Fault) { f.Methods = []string{"/grpc.health.v1.Health/Check"} }, "Health/Check", "leave it out"},
		{func(f *Fault) { f.Methods = []string{"/grpc.reflection.v1.ServerReflection/*"} }, "Reflection/*", "leave it out"},

		{func(f *Fault) { f.Share, f.Methods = 1, []string{"/a.B/*", AllMethods} }, "a Share of 1 over all", "AllCalls"},
		{func(f *Fault) { f.Share, f.Methods, f.Matcher = 1, nil, any }, "a Matcher", "AllCalls"},
		{func(f *Fault) { f.AllCalls = true }, "AllCalls with a Share of 0.01", "leave it out"},
		{func(f *Fault) { f.Share, f.AllCalls = 1, true }, "AllCalls", "leave it out"},

		{func(f *Fault) { f.For = 0 }, "no end", "For or Until"},
		{func(f *Fault) { f.For = -time.Second }, "For -1s", "more than 0"},
		{func(f *Fault) { f.Until = time.Now().Add(time.Hour) }, "two ends", "one of them"},
		{func(f *Fault) { f.For, f.Until = 0, time.Now() }, "has passed", "a later one"},
		{func(f *Fault) { f.From = time.Now().Add(-time.Hour) }, "has passed", "a later one"},
		{func(f *Fault) { f.For, f.From, f.Until = 0, time.Now().Add(2*time.Hour), time.Now().Add(time.Hour) }, "a start at", "From before Until"},
		{func(f *Fault) { f.For = MaxLength + 1 }, "a length of 24h", "start it again"},
		{func(f *Fault) { f.For = math.MaxInt64 }, "a length of", "at most 24h"},
		{func(f *Fault) { f.For, f.Until = 0, time.Now().AddDate(9000, 0, 0) }, "a length of", "at most 24h"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			defer s.Stop()
			start(t, s, good())
			bad := good()
			c.spoil(&bad)
			err := s.Start(good(), bad)
			if err == nil {
				t.Errorf("no error; want one with %q and %q", c.wrong, c.want)
				return
			}
			if text := err.Error(); !strings.HasPrefix(text, "chaos: fault 1: ") || !strings.Contains(text, c.wrong) || !strings.Contains(text, c.want) {
				t.Errorf("%v; want one on fault 1 with %q and %q", err, c.wrong, c.want)
			}
			if got := s.Faults(); len(got) != 1 {
				t.Errorf("%d faults in force after an error, want the one from before", len(got))
			}
		})
	}
}

func TestBadNumbersOfFaults(t *testing.T) {
	s := newServer(t)
	for _, faults := range [][]Fault{nil, {}, make([]Fault, MaxFaults+1)} {
		if err := s.Start(faults...); err == nil || !strings.Contains(err.Error(), "want 1 to 16, or Stop") {
			t.Errorf("Start with %d faults: %v", len(faults), err)
		}
	}
}

func TestAClientDoesNotPanic(t *testing.T) {
	c, err := NewClient()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(everything(Fault{Kind: Panic})); err == nil || !strings.Contains(err.Error(), "panics are for servers") {
		t.Errorf("a panic at a client: %v", err)
	}
}

func TestReadingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		defer s.Stop()
		delay := Fault{Kind: Delay, Delay: time.Second, Share: .5, Methods: []string{"/a.B/C"}, From: time.Now().Add(time.Hour), For: time.Minute}
		start(t, s, good(), delay)
		got := s.Faults()
		wantFirst, wantSecond := good(), delay
		wantFirst.From, wantFirst.Until, wantFirst.For = time.Now(), time.Now().Add(time.Minute), 0
		wantSecond.Until, wantSecond.For = delay.From.Add(time.Minute), 0
		if want := []InForce{{Fault: wantFirst}, {Fault: wantSecond}}; !reflect.DeepEqual(got, want) {
			t.Errorf("in force:\n%+v, want\n%+v", got, want)
		}

		got[0].Methods[0], delay.Methods[0] = "/x.Y/*", "/x.Y/*"
		if again := s.Faults(); again[0].Methods[0] != "/a.B/*" || again[1].Methods[0] != "/a.B/C" {
			t.Errorf("what is in force can be changed from outside: %+v", again)
		}

		text, err := json.Marshal(s.Faults())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{`"Kind":"error"`, `"Kind":"delay"`, `"Methods":["/a.B/*"]`, `"Injected":0`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("as JSON %s, without %s", text, part)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.Faults(); len(got) != 1 || got[0].Kind != Delay {
			t.Errorf("after the first one's end: %+v, want the second", got)
		}
	})
}

// A fault can come from a file or an operator's request.
func TestFaultsFromJSON(t *testing.T) {
	var f Fault
	err := json.Unmarshal([]byte(`{"Kind": "error", "Code": "UNAVAILABLE", "Share": 0.01, "Methods": ["/a.B/*"], "For": 60000000000}`), &f)
	if err != nil || !reflect.DeepEqual(f, good()) {
		t.Errorf("%+v, %v; want %+v", f, err, good())
	}
	for _, kind := range []string{`""`, `"Delay"`, `"chaos"`, `1`} {
		if err := json.Unmarshal([]byte(kind), new(Kind)); err == nil {
			t.Errorf("%s is read as a kind", kind)
		}
	}
	if text, err := Kind(0).MarshalText(); err == nil {
		t.Errorf("the zero kind is written as %q", text)
	}
}
