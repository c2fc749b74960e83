package interceptors

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// A caller may start before its callee. Once the callee was there, its absence is told at once; and when it is back, the
// connection soon is.
func TestNoOrderOfStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var listener atomic.Pointer[bufconn.Listener]
		conn, err := grpc.NewClient("passthrough:///late", append(append(ConnectionOptions(), DialOptions()...),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if l := listener.Load(); l != nil {
					return l.DialContext(ctx)
				}
				return nil, errors.New("nobody listens")
			}),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := testpb.NewTestServiceClient(conn)
		start := func() (stop func()) {
			srv := grpc.NewServer(grpc.WaitForHandlers(true))
			testpb.RegisterTestServiceServer(srv, &service{})
			l := bufconn.Listen(1 << 16)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			listener.Store(l)
			return func() {
				listener.Store(nil)
				srv.Stop()
				<-served
			}
		}
		answered := make(chan error)
		go func() { answered <- askUnary(t.Context(), client) }()
		time.Sleep(time.Minute)
		stop := start()
		began := time.Now()
		if err := <-answered; err != nil {
			t.Fatalf("a call from before the start: %v", err)
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("connected %v after the start, want 12s at most", took)
		}
		if err := askUnary(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		stop()
		synctest.Wait()
		began = time.Now()
		if err := askUnary(t.Context(), client); status.Code(err) != codes.Unavailable || time.Since(began) > time.Second {
			t.Errorf("%v after %v, want UNAVAILABLE at once", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		stop = start()
		defer stop()
		time.Sleep(12 * time.Second)
		if err := askUnary(t.Context(), client); err != nil {
			t.Errorf("12s after the callee is back: %v", err)
		}
	})
}

// A server with the defaults never ends a connection for its pings, however long a stream says nothing.
func TestKeepaliveIsNotTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			select {
			case <-time.After(24 * time.Hour):
				return nil
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}}, nil, ConnectionOptions()...)
		if err := askStream(t.Context(), testpb.NewTestServiceClient(conn), 0); err != nil {
			t.Errorf("a stream that says nothing for a day: %v", err)
		}
	})
}

// A server that is gone without a word is noticed: a stream does not wait for it for ever.
func TestKeepaliveNoticesAServerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		go func() { // takes all, and says only what opens a connection
			_, _ = there.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
			buffer := make([]byte, 1<<10)
			for {
				if _, err := there.Read(buffer); err != nil {
					return
				}
			}
		}()
		defer there.Close()
		conn, err := grpc.NewClient("passthrough:///mute", append(ConnectionOptions(),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return here, nil }),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		err = askStream(t.Context(), testpb.NewTestServiceClient(conn), 0)
		if took := time.Since(began); status.Code(err) != codes.Unavailable || took < 6*time.Minute || took > 7*time.Minute {
			t.Errorf("%v after %v, want UNAVAILABLE after between 6 and 7 minutes", err, took)
		}
	})
}
