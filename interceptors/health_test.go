package interceptors

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/spillway-go/spillway/limiter"
)

// probe asks as a load balancer does, and returns the code of the answer.
func probe(t *testing.T, serve http.HandlerFunc) int {
	t.Helper()
	answer := httptest.NewRecorder()
	serve(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	if !strings.HasSuffix(answer.Body.String(), "\n") {
		t.Errorf("answer %q, want a word for people", answer.Body)
	}
	return answer.Code
}

// Overload turns neither readiness nor life off, a drain turns readiness off, and the application may do so too.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limit(1)...)
		check := func(when string, ready int) {
			t.Helper()
			if got := probe(t, s.ServeReady); got != ready {
				t.Errorf("%s: ready is %d, want %d", when, got, ready)
			}
			if got := probe(t, s.ServeLive); got != http.StatusOK {
				t.Errorf("%s: live is %d, want 200", when, got)
			}
		}
		check("at the start", http.StatusOK)
		empty := fill(t, s.Limiter())
		check("while all newcomers are refused", http.StatusOK)
		empty()
		press(t, s.Limiter(), limiter.Critical)
		check("under pressure", http.StatusOK)
		s.Health().SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		check("while the application warms up", http.StatusServiceUnavailable)
		s.Health().SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		check("when it is warm", http.StatusOK)
		if err := s.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("when it has drained", http.StatusServiceUnavailable)
	})
}
