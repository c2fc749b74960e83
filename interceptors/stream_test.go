package interceptors

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// echo answers every message after working on it for d.
func echo(d time.Duration) *service {
	return &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
		for {
			if _, err := stream.Recv(); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			time.Sleep(d)
			if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	}}
}

// A stream that is open and idle holds no permit, and its lifetime is no service time.
func TestIdleStreamsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, echo(time.Millisecond), limit(1))
		var streams []testpb.TestService_FullDuplexCallClient
		for range 20 {
			stream, err := p.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			streams = append(streams, stream)
		}
		synctest.Wait()
		if got := p.server.Limiter().Stats().InFlight; got != 0 {
			t.Errorf("%d in flight with 20 idle streams, want 0", got)
		}
		time.Sleep(time.Hour)
		for _, stream := range streams {
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if got := p.server.Limiter().Stats().Service; got > 10*time.Millisecond {
			t.Errorf("service time %v after streams of an hour with 1ms of work, want about 1ms", got)
		}
	})
}

// Messages that come faster than they can be worked on are held back, and none is lost.
func TestMessagesAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, messages = 4, 25
		p := connect(t, echo(10*time.Millisecond), limit(1))
		start := time.Now()
		done := make(chan int)
		for range streams {
			go func() {
				answered := 0
				defer func() { done <- answered }()
				stream, err := p.FullDuplexCall(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for range messages {
					if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
						t.Error(err)
						return
					}
				}
				_ = stream.CloseSend()
				for {
					if _, err := stream.Recv(); err != nil {
						if !errors.Is(err, io.EOF) {
							t.Error(err)
						}
						return
					}
					answered++
				}
			}()
		}
		answered := 0
		for range streams {
			answered += <-done
		}
		if answered != streams*messages {
			t.Errorf("%d answers, want %d", answered, streams*messages)
		}
		if took, least := time.Since(start), streams*messages*10*time.Millisecond; took < least {
			t.Errorf("took %v, less than %v: more than one was in flight at a limit of 1", took, least)
		}
	})
}

// A reader that does not read pins no permit.
func TestSlowReaderPinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
			for {
				body := &testpb.Payload{Body: make([]byte, 16<<10)}
				if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: body}); err != nil {
					return err
				}
			}
		}}
		p := connect(t, svc, limit(1))
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			if _, err := p.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := p.server.Limiter().Stats().InFlight; got != 0 {
			t.Errorf("%d in flight while all senders are blocked, want 0", got)
		}
		if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Errorf("a call meanwhile: %v", err)
		}
		cancel()
	})
}

func TestVanishedClientReturnsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, echo(time.Second), limit(1))
		for range 3 {
			stream, err := p.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		_ = p.conn.Close() // one message is worked on, two streams are held back
		time.Sleep(10 * time.Second)
		p.wantEmpty(t)
	})
}

func TestStreamPanicReleases(t *testing.T) {
	s, err := NewServer(limit(1)...)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo, func(any, grpc.ServerStream) error { panic("handler") })
		t.Error("the panic was swallowed")
	}()
	if got := s.Limiter().Stats(); got.InFlight != 0 || got.Outcomes[limiter.Panicked] != 1 {
		t.Errorf("stats %+v, want one panic and nothing in flight", got)
	}
}

func TestStreamIsRefusedWhenTheServerIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, echo(0), limit(1, WithoutTap()))
		held, err := p.server.Limiter().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		stream, err := p.FullDuplexCall(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if code := status.Code(err); code != codes.DeadlineExceeded {
			t.Errorf("opening at a full server: %v, want DeadlineExceeded after the wait", err)
		}
		held.Release(limiter.OK)
	})
}

// A goroutine that still receives when the handler has returned gets no permit that nobody would release.
func TestReceiverOutlivesItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(limit(1)...)
		if err != nil {
			t.Fatal(err)
		}
		inner := &fakeStream{ctx: t.Context(), recv: make(chan struct{})}
		received := make(chan error, 1)
		err = s.stream(nil, inner, streamInfo, func(_ any, stream grpc.ServerStream) error {
			go func() { received <- stream.RecvMsg(nil) }()
			synctest.Wait()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		inner.recv <- struct{}{}
		if err := <-received; status.Code(err) != codes.Canceled {
			t.Errorf("a message after the handler's end: %v, want Canceled", err)
		}
		if got := s.Limiter().Stats().InFlight; got != 0 {
			t.Errorf("%d in flight, want 0", got)
		}
	})
}

// Only messages count as work done: not the opening, and not the end of the messages.
func TestOnlyMessagesAreCompletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, echo(time.Millisecond), limit(1))
		stream, err := p.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const messages = 3
		for range messages {
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		_ = stream.CloseSend()
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := p.server.Limiter().Stats().Outcomes[limiter.OK]; got != messages {
			t.Errorf("%d completions of %d messages", got, messages)
		}
	})
}

// What a client-streaming method computes once all messages are in is work: it holds a permit.
func TestWorkAfterTheLastMessageIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Server
		svc := &service{input: func(stream testpb.TestService_StreamingInputCallServer) error {
			for {
				if _, err := stream.Recv(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					return err
				}
			}
			time.Sleep(10 * time.Millisecond)
			if got := s.Limiter().Stats().InFlight; got != 1 {
				t.Errorf("%d in flight while the answer is made, want 1", got)
			}
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
		}}
		p := connect(t, svc, limit(1))
		s = p.server
		stream, err := p.StreamingInputCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testpb.StreamingInputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.Limiter().Stats().Outcomes[limiter.OK]; got != 2 {
			t.Errorf("%d completions, want 2: of the message and of the answer", got)
		}
	})
}

// Receiving, sending and returning at the same time, which gRPC allows, is free of races and leaks. A permit lost
// would block the bubble for ever, which ends the test.
func TestStreamInManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(limit(2)...)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			var left sync.WaitGroup
			err := s.stream(nil, &fakeStream{ctx: t.Context()}, streamInfo, func(_ any, stream grpc.ServerStream) error {
				for _, side := range []func(any) error{stream.RecvMsg, stream.SendMsg} {
					left.Go(func() {
						for range 20 {
							_ = side(nil)
						}
					})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			left.Wait()
		}
		if got := s.Limiter().Stats().InFlight; got != 0 {
			t.Errorf("%d in flight at the end, want 0", got)
		}
	})
}
