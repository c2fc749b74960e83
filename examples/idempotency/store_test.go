package main

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-go/spillway/interceptors/idempotency"
)

var (
	id   = idempotency.ID{Method: "/a.B/C", Caller: "alice", Key: "k"}
	same = idempotency.Fingerprint{1}
)

func newTestStore(t *testing.T) *store {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "keys.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := newStore(t.Context(), db, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// claimed claims for a minute, or ends the test.
func claimed(t *testing.T, s *store, id idempotency.ID) idempotency.Claim {
	t.Helper()
	claim, answer, err := s.Claim(t.Context(), id, same, time.Minute)
	if claim == nil || answer != nil || err != nil {
		t.Fatalf("Claim = %v, %q, %v; want a claim", claim, answer, err)
	}
	return claim
}

func wantClaim(t *testing.T, s *store, of idempotency.Fingerprint, answer string, want error) {
	t.Helper()
	claim, got, err := s.Claim(t.Context(), id, of, time.Minute)
	if claim != nil || string(got) != answer || !errors.Is(err, want) {
		t.Errorf("Claim = %v, %q, %v; want %q, %v", claim, got, err, answer, want)
	}
}

func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestStore(t)
		dead := claimed(t, s, id)
		wantClaim(t, s, same, "", idempotency.ErrHeld)
		wantClaim(t, s, idempotency.Fingerprint{2}, "", idempotency.ErrMismatch)

		time.Sleep(time.Minute)
		claim := claimed(t, s, id)
		if err := dead.Put(t.Context(), []byte("too late")); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Put of a claim that has ended = %v, want ErrLost", err)
		}
		if err := dead.Release(t.Context()); err != nil {
			t.Error(err)
		}
		wantClaim(t, s, same, "", idempotency.ErrHeld)

		if err := claim.Put(t.Context(), []byte("done")); err != nil {
			t.Error(err)
		}
		wantClaim(t, s, same, "done", nil)
		wantClaim(t, s, idempotency.Fingerprint{2}, "", idempotency.ErrMismatch)
		if err := claim.Release(t.Context()); err != nil { // too late
			t.Error(err)
		}
		time.Sleep(59 * time.Minute)
		if err := s.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		wantClaim(t, s, same, "done", nil)
		time.Sleep(2 * time.Minute)
		if err := s.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		var rows int
		if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM idempotency`).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d rows after all has ended, %v; want none", rows, err)
		}
		if err := claimed(t, s, id).Release(t.Context()); err != nil {
			t.Error(err)
		}
		claimed(t, s, id)
		for _, other := range []idempotency.ID{{Method: "/a.B/D", Caller: "alice", Key: "k"}, {Method: "/a.B/C", Caller: "bob", Key: "k"}, {Method: "/a.B/C", Caller: "alice", Key: "l"}} {
			claimed(t, s, other)
		}
	})
}

func TestOneOfManyGetsTheClaim(t *testing.T) {
	s := newTestStore(t)
	var claims atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for key := range 10 {
				claim, _, err := s.Claim(t.Context(), idempotency.ID{Method: "/a.B/C", Caller: "alice", Key: fmt.Sprint(key)}, same, time.Minute)
				if claim != nil {
					claims.Add(1)
				} else if !errors.Is(err, idempotency.ErrHeld) {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if got := claims.Load(); got != 10 {
		t.Errorf("%d claims of 10 keys, want 10", got)
	}
}
