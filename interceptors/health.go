package interceptors

import (
	"io"
	"net/http"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Health returns grpc-go's server of the health service, to be registered with this server's gRPC server:
//
//	healthpb.RegisterHealthServer(srv, protection.Health())
//
// It says SERVING for the server as a whole, which is the service "", until [Server.Drain]; for services of their own
// applications use its SetServingStatus. Overload changes nothing here, since a server that is busy does the most that
// it can: to take it out would send its load to the others, and then those would be taken out.
func (s *Server) Health() *health.Server { return s.health }

// ServeReady answers an HTTP probe that asks whether the server wants new work: 200 while [Server.Health] says SERVING
// for the server as a whole, and 503 otherwise. It is an [http.HandlerFunc].
func (s *Server) ServeReady(w http.ResponseWriter, r *http.Request) {
	code := http.StatusServiceUnavailable
	answer, err := s.health.Check(r.Context(), &healthpb.HealthCheckRequest{})
	if err == nil && answer.Status == healthpb.HealthCheckResponse_SERVING {
		code = http.StatusOK
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, answer.GetStatus().String()+"\n")
}

// ServeLive answers an HTTP probe that asks whether the process should be restarted: always 200, while it is overloaded
// and while it drains too, for a restart would lose what it has begun. It is an [http.HandlerFunc].
func (s *Server) ServeLive(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "LIVE\n")
}
