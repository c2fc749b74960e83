package interceptors

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/limiter"
)

// sink works for d on each message of a stream of the client, and counts them.
func sink(d time.Duration, worked *atomic.Int64) *service {
	work := func(receive func() error) error {
		for {
			if err := receive(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			time.Sleep(d)
			worked.Add(1)
		}
	}
	return &service{
		input: func(stream testpb.TestService_StreamingInputCallServer) error {
			return work(func() error { _, err := stream.Recv(); return err })
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			return work(func() error { _, err := stream.Recv(); return err })
		},
	}
}

// messageSize is that of the messages of a sender without end.
const messageSize = 16 << 10

// senders open a stream and return how to send one message on it.
var senders = map[string]func(context.Context, *pair) (func() error, error){
	"client": func(ctx context.Context, p *pair) (func() error, error) {
		stream, err := p.StreamingInputCall(ctx)
		return func() error {
			return stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, messageSize)}})
		}, err
	},
	"bidi": func(ctx context.Context, p *pair) (func() error, error) {
		stream, err := p.FullDuplexCall(ctx)
		return func() error {
			return stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, messageSize)}})
		}, err
	},
}

// endless sends until ctx ends, and counts what was accepted.
func endless(t *testing.T, ctx context.Context, p *pair, kind string, accepted *atomic.Int64) {
	t.Helper()
	send, err := senders[kind](ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // it is open, and waits for messages
	go func() {
		for send() == nil {
			accepted.Add(1)
		}
	}()
}

// windows is what HTTP/2 takes from a sender before somebody reads, in bytes: the window of a stream is 64 KiB at first,
// but gRPC lets it grow to 16 MiB where data come fast, and either side keeps some more.
const windows = 17 << 20

// While there is no permit for its messages, a sender is stopped: its SendMsg does not return. It goes on when there
// is one again.
func TestOverloadStopsTheSender(t *testing.T) {
	for kind := range senders {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var worked, accepted atomic.Int64
				p := connect(t, sink(time.Millisecond, &worked), limit(1))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				held := mustAcquire(t, p)
				held.Suspend() // the stream opens
				endless(t, ctx, p, kind, &accepted)
				held.Resume()

				synctest.Wait() // nothing can move any more but time
				stopped := accepted.Load()
				time.Sleep(time.Second)
				if got := worked.Load(); got > 0 {
					t.Fatalf("%d messages were worked on without a permit", got)
				}
				if stopped*messageSize > windows {
					t.Errorf("%d messages of %d bytes were accepted and none was worked on, want at most the windows: %d bytes", stopped, messageSize, windows)
				}
				time.Sleep(time.Hour)
				if got := accepted.Load(); got != stopped {
					t.Errorf("%d messages were accepted in an hour without a permit, want none", got-stopped)
				}
				if s := p.server.Limiter().Stats(); s.InFlight != 1 || s.Line != 1 {
					t.Errorf("%d in flight and %d in line; want 1, which holds the permit, and 1, the message", s.InFlight, s.Line)
				}

				held.Release(limiter.OK)
				time.Sleep(time.Duration(stopped+100) * time.Millisecond) // it is 1 ms for each
				if got := accepted.Load(); got < stopped+50 {
					t.Errorf("%d more messages were accepted when permits were free again, want 100", got-stopped)
				}
				cancel()
				time.Sleep(time.Second)
				p.wantEmpty(t)
			})
		})
	}
}

func mustAcquire(t *testing.T, p *pair) limiter.Permit {
	t.Helper()
	permit, err := p.server.Limiter().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return permit
}

// Clients that would send without end are held to what is worked on: neither what is accepted and waits nor the memory
// in use grows with time.
func TestEndlessSendersTakeNoMemory(t *testing.T) {
	for kind := range senders {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const streams = 4
				var worked, accepted atomic.Int64
				p := connect(t, sink(10*time.Millisecond, &worked), limit(1), grpc.StaticStreamWindowSize(64<<10))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for range streams {
					endless(t, ctx, p, kind, &accepted)
				}
				time.Sleep(time.Second)
				before, worked0 := heapInUse(), worked.Load()
				for range 10 {
					time.Sleep(2 * time.Second)
					if waits := accepted.Load() - worked.Load(); waits*messageSize > streams*3*(64<<10+messageSize) {
						t.Fatalf("%d messages were accepted and wait, %d KiB; want at most the windows of %d streams", waits, waits*messageSize>>10, streams)
					}
				}
				if after := heapInUse(); after > before+(2<<20) {
					t.Errorf("%d KiB in use after a second and %d KiB after 21, want about the same", before>>10, after>>10)
				}
				if got := worked.Load() - worked0; got != 2000 {
					t.Errorf("%d messages of 10 ms were worked on in 20 s, one at a time; want 2000", got)
				}
				cancel()
				time.Sleep(time.Second)
				p.wantEmpty(t)
			})
		})
	}
}

// A reader that does not read stops the handler that sends: it holds no permit, and the memory in use does not grow
// with what it wants to send.
func TestReaderThatDoesNotReadStopsTheHandler(t *testing.T) {
	for kind, open := range map[string]func(context.Context, *pair) error{
		"server": func(ctx context.Context, p *pair) error {
			_, err := p.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
			return err
		},
		"bidi": func(ctx context.Context, p *pair) error {
			stream, err := p.FullDuplexCall(ctx)
			if err != nil {
				return err
			}
			return stream.Send(&testpb.StreamingOutputCallRequest{})
		},
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent atomic.Int64
				flood := func(send func(*testpb.StreamingOutputCallResponse) error) error {
					for {
						if err := send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, messageSize)}}); err != nil {
							return err
						}
						sent.Add(1)
					}
				}
				p := connect(t, &service{
					output: func(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
						return flood(stream.Send)
					},
					duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
						if _, err := stream.Recv(); err != nil {
							return err
						}
						return flood(stream.Send)
					},
				}, limit(1))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				const streams = 3 // more than permits
				for range streams {
					if err := open(ctx, p); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				stopped, before := sent.Load(), heapInUse()
				if stopped*messageSize > streams*windows {
					t.Errorf("%d messages were sent to readers that do not read, want at most the windows", stopped)
				}
				if s := p.server.Limiter().Stats(); s.InFlight != 0 || s.Line != 0 {
					t.Errorf("%d in flight and %d in line while all handlers are stopped, want none", s.InFlight, s.Line)
				}
				time.Sleep(time.Hour)
				if got := sent.Load(); got != stopped {
					t.Errorf("%d messages more were sent in an hour, want none", got-stopped)
				}
				if after := heapInUse(); after > before+(2<<20) {
					t.Errorf("%d KiB in use at first and %d KiB after an hour, want about the same", before>>10, after>>10)
				}
				cancel()
				synctest.Wait()
				p.wantEmpty(t)
			})
		})
	}
}

// heapInUse returns the bytes that are reachable.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // the first one moves what is in pools to where the second frees it
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
