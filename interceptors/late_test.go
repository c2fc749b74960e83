package interceptors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/limiter"
)

// The reset of a caller that has run out of time arrives a little before the deadline that the server knows, which was
// set when the request had been under way for some time. It is late, and one that comes earlier is a cancellation.
func TestResetsAtTheDeadlineAreLate(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  limiter.Outcome
	}{
		{time.Second - 300*time.Microsecond, limiter.Late},
		{970 * time.Millisecond, limiter.Late},
		{960 * time.Millisecond, limiter.Ignored},
		{time.Millisecond, limiter.Ignored},
	} {
		for _, path := range []string{aCall, aStream} {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, &service{
					unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					},
					duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
						if _, err := stream.Recv(); err != nil {
							return err
						}
						<-stream.Context().Done()
						return stream.Context().Err()
					},
				}, limit(1))
				r := newRawPeer(t, p.listen(t))
				defer r.Close()
				stream := r.open(path, "grpc-timeout", "1S")
				_ = r.WriteData(stream, path == aCall, message(0, 0))
				time.Sleep(c.after)
				_ = r.WriteRSTStream(stream, http2.ErrCodeCancel)
				synctest.Wait()
				if got := p.server.Limiter().Stats().Outcomes; got[c.want] != 1 {
					t.Errorf("%s reset after %v of a second: outcomes %v, want 1 %v", path, c.after, got, c.want)
				}
			})
		}
	}
}
