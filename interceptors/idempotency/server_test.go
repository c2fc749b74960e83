package idempotency

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// inBubble runs a test with a server of its own, in fake time.
func inBubble(
	t *testing.T, handle func(context.Context, int, *testpb.SimpleRequest) (*testpb.SimpleResponse, error),
	test func(t *testing.T, p *pair), opts ...Option,
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, connect(t, handle, opts...)) })
}

func TestRepeatsGetTheAnswer(t *testing.T) {
	inBubble(t, receipt, func(t *testing.T, p *pair) {
		p.wantPaid(t, "first", "1")
		p.wantPaid(t, "first", "1")
		p.wantPaid(t, "second", "2")
		time.Sleep(59 * time.Minute)
		p.wantPaid(t, "first", "1")
		p.bank.want(t, 2)
		time.Sleep(2 * time.Minute) // past the time that answers are kept
		p.wantPaid(t, "first", "3")
	})
}

func TestWithoutAKeyNothingIsKept(t *testing.T) {
	inBubble(t, receipt, func(t *testing.T, p *pair) {
		p.wantPaid(t, "", "1")
		p.wantPaid(t, "", "2")
	}, WithStore(brokenStore{}))
}

func TestWhatIsStored(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code == codes.Unavailable { // gRPC itself repeats it
			continue
		}
		t.Run(code.String(), func(t *testing.T) {
			inBubble(t, failing(status.Error(code, "no")), func(t *testing.T, p *pair) {
				p.wantCode(t, "k", code)
				if Final(status.Error(code, "")) {
					p.wantCode(t, "k", code)
					p.bank.want(t, 1)
				} else {
					p.wantPaid(t, "k", "2")
					p.wantPaid(t, "k", "2")
				}
			})
		})
	}
}

func TestTheUserSaysWhatIsFinal(t *testing.T) {
	inBubble(t, failing(status.Error(codes.NotFound, "not yet")), func(t *testing.T, p *pair) {
		p.wantCode(t, "k", codes.NotFound)
		p.wantPaid(t, "k", "2")
	}, WithFinal(func(err error) bool { return status.Code(err) != codes.NotFound }))
}

// All attempts of gRPC's retries carry the same key.
func TestRetriesCarryTheKey(t *testing.T) {
	var keys []string
	inBubble(t, func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		keys = append(keys, metadata.ValueFromIncomingContext(ctx, Header)...)
		if n < 3 {
			return nil, status.Error(codes.Unavailable, "not yet")
		}
		return receipt(ctx, n, r)
	}, func(t *testing.T, p *pair) {
		p.wantPaid(t, "k", "3")
		p.bank.want(t, 3)
		if got := strings.Join(keys, " "); got != "k k k" {
			t.Errorf("keys %q, want the same three times", got)
		}
	})
}

// The connection breaks while the handler works: gRPC repeats the call over another one, and gets the answer of the first.
func TestABrokenConnectionCostsNothing(t *testing.T) {
	inBubble(t, slowly(time.Second), func(t *testing.T, p *pair) {
		began := time.Now()
		time.AfterFunc(500*time.Millisecond, p.breakOff)
		p.wantPaid(t, "k", "1")
		p.bank.want(t, 1)
		if took := time.Since(began); took < time.Second || took > 1200*time.Millisecond {
			t.Errorf("took %v, want 1 s and a little", took)
		}
	})
}

// The caller does not wait for the answer, which is stored all the same.
func TestACallerThatGoesAwayFindsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connectTo(t, newServer(t, us, WithStore(&flakyStore{Memory: newMemory(t, Limits{})})), slowly(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := p.pay(ctx, "k"); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v, want DEADLINE_EXCEEDED", err)
		}
		p.wantPaid(t, "k", "1")
		p.bank.want(t, 1)
	})
}

func TestRepeatsAtTheSameTimeWait(t *testing.T) {
	inBubble(t, slowly(time.Second), func(t *testing.T, p *pair) {
		began := time.Now()
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { p.wantPaid(t, "k", "1") })
		}
		callers.Wait()
		p.bank.want(t, 1)
		if took := time.Since(began); took > time.Second*9/8+time.Millisecond {
			t.Errorf("took %v, want at most an eighth more than the work's 1 s", took)
		}
	})
}

func TestHowLongARepeatWaits(t *testing.T) {
	for name, c := range map[string]struct {
		opts     []Option
		deadline time.Duration
		code     codes.Code
		took     time.Duration
	}{
		"not at all":               {[]Option{WithWait(0)}, time.Minute, codes.Unavailable, 0},
		"as long as it may":        {[]Option{WithWait(300 * time.Millisecond)}, time.Minute, codes.Unavailable, 300 * time.Millisecond},
		"as long as it has":        {nil, 400 * time.Millisecond, codes.DeadlineExceeded, 400 * time.Millisecond},
		"whichever comes first is": {[]Option{WithWait(time.Hour)}, 400 * time.Millisecond, codes.DeadlineExceeded, 400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, us, c.opts...)
				first := make(chan struct{})
				go func() {
					defer close(first)
					_, _ = call(t, t.Context(), s, "k", func(ctx context.Context) { time.Sleep(10 * time.Second) })
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				began := time.Now()
				_, err := call(t, ctx, s, "k", func(context.Context) { t.Error("it was worked on twice") })
				if took := time.Since(began); status.Code(err) != c.code || took != c.took {
					t.Errorf("%v after %v, want %v after %v", err, took, c.code, c.took)
				}
				<-first
			})
		})
	}
}

// call calls the interceptor without a network in between.
func call(t *testing.T, ctx context.Context, s *Server, key string, work func(context.Context)) (any, error) {
	t.Helper()
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(Header, key))
	return s.unary(ctx, &testpb.SimpleRequest{}, &grpc.UnaryServerInfo{FullMethod: "/a.B/C"}, func(ctx context.Context, _ any) (any, error) {
		work(ctx)
		return &testpb.SimpleResponse{}, nil
	})
}

// Who panics leaves nothing behind but the claim, which ends with its lease.
func TestTheClaimOfTheDeadEnds(t *testing.T) {
	inBubble(t, func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if n == 1 {
			panic("on purpose")
		}
		return receipt(ctx, n, r)
	}, func(t *testing.T, p *pair) {
		began := time.Now()
		p.wantCode(t, "k", codes.Unknown) // as the recovery outside of us says
		p.wantPaid(t, "k", "2")
		if took := time.Since(began); took < 4*time.Minute || took > 4*time.Minute+time.Second {
			t.Errorf("took %v, want the lease of 4 min and a second at most", took)
		}
	}, WithLease(4*time.Minute))
}

// The handler's context ends before the lease, so that nobody else works at the same time.
func TestTheHandlerEndsBeforeTheLease(t *testing.T) {
	inBubble(t, func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if n > 1 {
			return receipt(ctx, n, r)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(t *testing.T, p *pair) {
		began := time.Now()
		p.wantCode(t, "k", codes.DeadlineExceeded)
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("took %v, want 9 s of the lease's 10", took)
		}
		p.wantPaid(t, "k", "2") // at once: the claim was released
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("the repeat came after %v, want at once", took-9*time.Second)
		}
	}, WithLease(10*time.Second))
}

// A handler that goes on after its lease is not believed: somebody else may have worked meanwhile.
func TestWhoComesTooLateIsNotStored(t *testing.T) {
	inBubble(t, func(ctx context.Context, n int, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if n == 1 {
			time.Sleep(30 * time.Second)
		}
		return receipt(ctx, n, r)
	}, func(t *testing.T, p *pair) {
		var callers sync.WaitGroup
		for range 2 { // whoever is first comes too late, and then repeats
			callers.Go(func() { p.wantPaid(t, "k", "2") })
		}
		callers.Wait()
		p.bank.want(t, 2)
	}, WithLease(10*time.Second))
}

func TestKeysAreOfAMethodAndACaller(t *testing.T) {
	s := newServer(t, CallerFromMetadata("user"))
	worked := 0
	ask := func(method, user, key string) error {
		t.Helper()
		_, err := s.unary(incoming(t, metadata.Pairs(Header, key, "user", user)), &testpb.SimpleRequest{},
			&grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
				worked++
				return &testpb.SimpleResponse{}, nil
			})
		return err
	}
	for _, id := range []ID{{"/a.B/C", "alice", "k"}, {"/a.B/C", "bob", "k"}, {"/a.B/D", "alice", "k"}, {"/a.B/C", "alice", "l"}} {
		before := worked
		for range 2 {
			if err := ask(id.Method, id.Caller, id.Key); err != nil {
				t.Errorf("%+v: %v", id, err)
			}
		}
		if worked != before+1 {
			t.Errorf("%+v: worked %d times, want once", id, worked-before)
		}
	}
	if err := ask("/a.B/C", "", "k"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v, want UNAUTHENTICATED", err)
	}
}

// The same key with another message is an error, while the first is worked on and afterwards.
func TestAKeyIsOfOneRequest(t *testing.T) {
	inBubble(t, slowly(time.Second), func(t *testing.T, p *pair) {
		ctx := ContextWithKey(t.Context(), "k")
		var first sync.WaitGroup
		first.Go(func() { p.wantPaid(t, "k", "1") })
		synctest.Wait()
		for range 2 {
			_, err := p.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 7})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "was used for another request") {
				t.Errorf("%v, want INVALID_ARGUMENT", err)
			}
			first.Wait()
		}
		p.bank.want(t, 1)
	})
}

func TestWhatIsRejected(t *testing.T) {
	inBubble(t, receipt, func(t *testing.T, p *pair) {
		p.wantCode(t, strings.Repeat("k", MaxKey+1), codes.InvalidArgument)
		p.wantCode(t, "a,b", codes.InvalidArgument)
		p.bank.want(t, 0)

		for key, want := range map[string]codes.Code{"k": codes.InvalidArgument, "a,b": codes.InvalidArgument} {
			stream, err := p.FullDuplexCall(ContextWithKey(t.Context(), key))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != want || !strings.Contains(err.Error(), "for unary calls only") {
				t.Errorf("a stream: %v, want %v", err, want)
			}
		}
		stream, err := p.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err == nil || strings.Contains(err.Error(), "spillway") {
			t.Errorf("a stream without a key: %v, want EOF", err)
		}
	})
}

// brokenStore fails.
type brokenStore struct{}

var errBroken = errors.New("no route to the database")

func (brokenStore) Claim(context.Context, ID, Fingerprint, time.Duration) (Claim, []byte, error) {
	return nil, nil, errBroken
}

// flakyStore is a Memory that fails at the end of a claim, or is slow there.
type flakyStore struct {
	*Memory
	put, release error
	slow         time.Duration
	stored       time.Time // when the last answer was
}

type flakyClaim struct {
	Claim
	store *flakyStore
}

func (s *flakyStore) Claim(ctx context.Context, id ID, of Fingerprint, lease time.Duration) (Claim, []byte, error) {
	claim, answer, err := s.Memory.Claim(ctx, id, of, lease)
	if claim != nil {
		claim = flakyClaim{claim, s}
	}
	return claim, answer, err
}

func (c flakyClaim) Put(ctx context.Context, answer []byte) error {
	if err := c.store.put; err != nil {
		c.store.put = nil // but once
		return err
	}
	time.Sleep(c.store.slow)
	c.store.stored = time.Now()
	if err := context.Cause(ctx); err != nil { // as a database has it
		return err
	}
	return c.Claim.Put(ctx, answer)
}

func (c flakyClaim) Release(ctx context.Context) error {
	if c.store.release != nil {
		return c.store.release
	}
	return c.Claim.Release(ctx)
}

func newMemory(t *testing.T, limits Limits) *Memory {
	t.Helper()
	m, err := NewMemory(limits)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAStoreThatFails(t *testing.T) {
	t.Run("at the claim", func(t *testing.T) {
		inBubble(t, receipt, func(t *testing.T, p *pair) {
			p.wantCode(t, "k", codes.Unavailable)
			p.bank.want(t, 0)
		}, WithStore(brokenStore{}))
	})
	// What is not stored is not answered for: the caller repeats it, and it is worked on when the lease has ended.
	t.Run("at the answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &flakyStore{Memory: newMemory(t, Limits{}), put: errBroken}
			s := newServer(t, us, WithStore(store), WithLease(10*time.Second))
			worked := 0
			work := func(context.Context) { worked++ }
			began := time.Now()
			if _, err := call(t, t.Context(), s, "k", work); status.Code(err) != codes.Unavailable {
				t.Errorf("%v, want UNAVAILABLE", err)
			}
			if _, err := call(t, t.Context(), s, "k", work); err != nil || worked != 2 {
				t.Errorf("the repeat: %v, worked %d times; want 2", err, worked)
			}
			if took := time.Since(began); took < 10*time.Second {
				t.Errorf("worked on again after %v, want the lease to end first", took)
			}
		})
	})
	t.Run("at the release", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := connectTo(t, newServer(t, us, WithStore(&flakyStore{Memory: newMemory(t, Limits{}), release: errBroken}), WithLease(10*time.Second)),
				failing(status.Error(codes.Aborted, "no")))
			p.wantCode(t, "k", codes.Aborted)
			p.wantPaid(t, "k", "2")
		})
	})
}

// The answer leaves only when it is stored.
func TestTheAnswerIsStoredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory(t, Limits{}), slow: time.Second}
		p := connectTo(t, newServer(t, us, WithStore(store)), receipt)
		began := time.Now()
		p.wantPaid(t, "k", "1")
		if answered, stored := time.Since(began), store.stored.Sub(began); answered != time.Second || stored != time.Second {
			t.Errorf("answered after %v, stored after %v; want both after a second", answered, stored)
		}
	})
}

func TestAnAnswerThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connectTo(t, newServer(t, us, WithStore(newMemory(t, Limits{Bytes: 4 << 10}))),
			func(_ context.Context, n int, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
				return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, 8<<10)}}, nil
			})
		p.wantPaid(t, "k", "") // whoever is there gets it
		_, err := p.pay(t.Context(), "k")
		if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "ended with OK, but its answer was too large") {
			t.Errorf("the repeat: %v, want DATA_LOSS", err)
		}
		p.bank.want(t, 1)
	})
}

func TestAStoreThatIsFull(t *testing.T) {
	inBubble(t, slowly(time.Second), func(t *testing.T, p *pair) {
		var first sync.WaitGroup
		first.Go(func() { p.wantPaid(t, "first", "1") })
		synctest.Wait()
		p.wantCode(t, "second", codes.ResourceExhausted)
		first.Wait()
		p.bank.want(t, 1)
	}, WithStore(func() Store { m, _ := NewMemory(Limits{Entries: 1}); return m }()))
}

func TestOptionErrors(t *testing.T) {
	for name, c := range map[string]struct {
		caller CallerFunc
		opts   []Option
		want   string
	}{
		"no caller":        {nil, nil, "NewServer without a CallerFunc; want one that tells callers apart"},
		"nil":              {us, []Option{nil}, "option 0 is nil; leave it out"},
		"no store":         {us, []Option{WithStore(nil)}, "WithStore(nil); want a Store"},
		"no lease":         {us, []Option{WithLease(0)}, "WithLease(0s); want at least 1ms"},
		"a negative wait":  {us, []Option{WithWait(-time.Second)}, "WithWait(-1s); want at least 0"},
		"no function":      {us, []Option{WithFinal(nil)}, "WithFinal(nil); want a function"},
		"no provider":      {us, []Option{WithMeterProvider(nil)}, "WithMeterProvider(nil); want a metric.MeterProvider"},
		"no such provider": {us, []Option{WithMeterProvider(&recorder{failing: errBroken})}, "the meter provider rejects the metrics"},
	} {
		if _, err := NewServer(c.caller, c.opts...); err == nil || !strings.HasPrefix(err.Error(), "idempotency: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.want)
		}
	}
}
