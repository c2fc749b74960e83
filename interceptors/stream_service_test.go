package interceptors

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/limiter"
)

// Streams that are open for an hour, in which 10 ms are worked on each of three messages, have a service time of 10 ms
// whoever sends the messages: neither the wait for a message nor that for a reader is work.
func TestLifetimeIsNoServiceTime(t *testing.T) {
	const (
		streams  = 20
		messages = 3
		work     = 10 * time.Millisecond
		pause    = 20 * time.Minute
	)
	svc := &service{
		input: func(stream testpb.TestService_StreamingInputCallServer) error {
			for {
				if _, err := stream.Recv(); errors.Is(err, io.EOF) {
					time.Sleep(work) // the answer
					return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
				} else if err != nil {
					return err
				}
				time.Sleep(work)
			}
		},
		output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
			time.Sleep(work)
			for range messages { // of which each fills the windows
				if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, 200<<10)}}); err != nil {
					return err
				}
			}
			return nil
		},
		duplex: echo(work).duplex,
	}
	for kind, run := range map[string]func(context.Context, *pair) error{
		"client": func(ctx context.Context, p *pair) error {
			stream, err := p.StreamingInputCall(ctx)
			for range messages {
				if err == nil {
					err = stream.Send(&testpb.StreamingInputCallRequest{})
				}
				time.Sleep(pause)
			}
			if err == nil {
				_, err = stream.CloseAndRecv()
			}
			return err
		},
		"server": func(ctx context.Context, p *pair) error {
			stream, err := p.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
			for range messages {
				time.Sleep(pause)
				if err == nil {
					_, err = stream.Recv()
				}
			}
			if err == nil {
				_, err = stream.Recv()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		},
		"bidi": func(ctx context.Context, p *pair) error {
			stream, err := p.FullDuplexCall(ctx)
			for range messages {
				if err == nil {
					err = stream.Send(&testpb.StreamingOutputCallRequest{})
				}
				if err == nil {
					_, err = stream.Recv()
				}
				time.Sleep(pause)
			}
			if err == nil {
				err = stream.CloseSend()
			}
			return err
		},
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, svc, limit(streams))
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				start, ended := time.Now(), make(chan error)
				for range streams {
					go func() { ended <- run(ctx, p) }()
				}
				for range streams {
					if err := <-ended; err != nil {
						t.Error(err)
					}
				}
				if got := time.Since(start); got < time.Hour {
					t.Fatalf("the streams were open for %v, want an hour", got)
				}
				synctest.Wait()
				time.Sleep(time.Minute)
				mustAcquire(t, p).Cancel() // closes the window
				s := p.server.Limiter().Stats()
				if got := s.Service.Round(time.Microsecond); got != work {
					t.Errorf("service time %v after %d completions, want %v", got, s.Outcomes[limiter.OK], work)
				}
				p.wantEmpty(t)
			})
		})
	}
}

// A method that waits for something to tell holds a permit while it waits, for nobody can tell that from work. Where it
// is exempt, as the docs advise, any number of such streams leaves the server free.
func TestWaitingMethodsAreToBeExempt(t *testing.T) {
	svc := &service{output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
	watch := method("StreamingOutputCall")
	for _, c := range []struct {
		opts []Option
		want int
	}{{nil, 3}, {[]Option{WithExempt(watch)}, 0}} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, svc, limit(5, c.opts...))
			for range 3 {
				if _, err := p.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if got := p.server.Limiter().Stats().InFlight; got != c.want {
				t.Errorf("%d in flight while 3 methods wait, with %d exemptions; want %d", got, len(c.opts), c.want)
			}
		})
	}
}
