package interceptors

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// Methods that raw peers call.
const (
	aCall   = "/grpc.testing.TestService/UnaryCall"
	aStream = "/grpc.testing.TestService/FullDuplexCall"
)

// A message is worked on for some time, and inTheMiddle of it something else comes.
const (
	workTime    = time.Millisecond
	inTheMiddle = workTime / 2
)

// hostile is what a peer can do to a server, on a connection of its own.
var hostile = map[string]func(r *rawPeer){
	"methods that are none": func(r *rawPeer) {
		for _, path := range []string{"", "/", "//", "x", "/x", "/x/y", "/grpc.testing.TestService/", "/grpc.testing.TestService/No", "/" + strings.Repeat("x", 4000) + "/y", "/\xff\x00/\xfe"} {
			_ = r.WriteData(r.open(path), true, message(0, 0))
		}
	},
	"messages too long": func(r *rawPeer) { // gRPC's servers take 4 MiB
		for _, path := range []string{aCall, aStream} {
			stream := r.open(path)
			_ = r.WriteData(stream, false, message(5<<20, 16<<10))
			for range 10 {
				_ = r.WriteData(stream, false, make([]byte, 16<<10))
			}
		}
	},
	"messages that are not what they say": func(r *rawPeer) {
		for _, path := range []string{aCall, aStream} {
			_ = r.WriteData(r.open(path), true, message(100, 10))
			_ = r.WriteData(r.open(path), true, message(10, 100))
			_ = r.WriteData(r.open(path), true, []byte{0xff, 0, 0, 0, 1, 0})
			_ = r.WriteData(r.open(path), true, []byte{1, 0, 0, 0, 1, 0xff})
			_ = r.WriteData(r.open(path), true, []byte{0, 0})
			_ = r.WriteData(r.open(path), true, append(message(4, 0), 0xff, 0xff, 0xff, 0xff)) // no protobuf
			_ = r.WriteData(r.open(path), true, nil)
		}
	},
	"headers that are none of gRPC's": func(r *rawPeer) {
		for _, more := range [][]string{
			{"grpc-timeout", "1n"}, {"grpc-timeout", "0S"}, {"grpc-timeout", "soon"}, {"grpc-timeout", "99999999H"},
			{"grpc-timeout", "-1S"}, {"grpc-encoding", "none-such"}, {"x-bin", "%%%"}, {"connection", "close"},
			{"content-type", "text/plain"}, {":method", "GET"}, {"host", "a"}, {":authority", "b"},
			{CriticalityHeader, strings.Repeat("x", 4000)}, {"x", strings.Repeat("y", 100_000)},
		} {
			for _, path := range []string{aCall, aStream} {
				_ = r.WriteData(r.open(path, more...), true, message(0, 0))
			}
		}
	},
	"calls without a message": func(r *rawPeer) {
		for range 100 {
			r.open(aCall)
			r.open(aStream)
			r.open(aCall, "grpc-timeout", "1S")
			r.open(aStream, "grpc-timeout", "1S")
		}
	},
	"streams reset at once": func(r *rawPeer) {
		for range 500 {
			_ = r.WriteRSTStream(r.open(aCall), http2.ErrCodeCancel)
			_ = r.WriteRSTStream(r.open(aStream), http2.ErrCodeCancel)
			stream := r.open(aCall)
			_ = r.WriteData(stream, true, message(0, 0))
			_ = r.WriteRSTStream(stream, http2.ErrCodeNo)
			stream = r.open(aStream)
			_ = r.WriteData(stream, false, message(0, 0))
			_ = r.WriteRSTStream(stream, http2.ErrCode(0xdead))
		}
	},
	"streams opened first and reset then": func(r *rawPeer) {
		for range 500 {
			_ = r.WriteData(r.open(aStream), false, message(0, 0))
			_ = r.WriteData(r.open(aCall), true, message(0, 0))
		}
		time.Sleep(inTheMiddle)
		for stream := uint32(1); stream <= r.last; stream += 2 {
			_ = r.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	},
	"calls reset in the middle": func(r *rawPeer) {
		for range 5 {
			for _, path := range []string{aCall, aStream} {
				stream := r.open(path)
				_ = r.WriteData(stream, path == aCall, message(0, 0))
				time.Sleep(inTheMiddle)
				_ = r.WriteRSTStream(stream, http2.ErrCodeCancel)
				time.Sleep(workTime)
			}
		}
	},
	"a goodbye, and more": func(r *rawPeer) {
		_ = r.WriteData(r.open(aStream), false, message(0, 0))
		_ = r.WriteGoAway(r.last, http2.ErrCodeNo, []byte("goodbye"))
		_ = r.WriteData(r.open(aStream), false, message(0, 0))
		_ = r.WriteData(r.open(aCall), true, message(0, 0))
	},
	"frames on streams that are not": func(r *rawPeer) {
		_ = r.WriteData(99, true, message(0, 0))
		_ = r.WriteRSTStream(101, http2.ErrCodeCancel)
		_ = r.WriteWindowUpdate(103, 1)
		stream := r.open(aCall)
		_ = r.WriteData(stream, true, message(0, 0))
		_ = r.WriteData(stream, true, message(0, 0))
		_ = r.WriteRSTStream(stream, http2.ErrCodeCancel)
		_ = r.WriteRSTStream(stream, http2.ErrCodeCancel)
	},
	"a window of nothing":        func(r *rawPeer) { _ = r.WriteWindowUpdate(r.open(aStream), 0) },
	"a window too large":         func(r *rawPeer) { _ = r.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff}) },
	"more than the window":       func(r *rawPeer) { flood(r, r.open(aStream), 1<<20) },
	"a stream of an even number": func(r *rawPeer) { r.headers(2, true, aCall) },
	"a stream of number 0":       func(r *rawPeer) { r.headers(0, true, aCall) },
	"a stream twice": func(r *rawPeer) {
		stream := r.open(aStream)
		r.headers(stream, false, aStream)
	},
	"settings that are none": func(r *rawPeer) {
		r.open(aStream)
		_ = r.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{1, 2, 3})
	},
	"frames of no type": func(r *rawPeer) {
		stream := r.open(aCall)
		_ = r.WriteRawFrame(0xee, 0xff, stream, []byte("?"))
		_ = r.WriteData(stream, true, message(0, 0))
	},
	"headers that cannot be read": func(r *rawPeer) {
		r.open(aStream)
		_ = r.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, r.last+2, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	},
	"headers without an end": func(r *rawPeer) {
		r.open(aStream)
		_ = r.WriteRawFrame(http2.FrameHeaders, 0, r.last+2, []byte{0x82})
		for range 100 {
			_ = r.WriteContinuation(r.last+2, false, nil)
		}
	},
	"a frame too long": func(r *rawPeer) {
		r.open(aStream)
		_, _ = r.Write([]byte{0xff, 0xff, 0xff, byte(http2.FrameData), 0, 0, 0, 0, 1})
	},
	"half a frame": func(r *rawPeer) {
		r.open(aStream)
		_, _ = r.Write([]byte{0, 0, 100, byte(http2.FrameData), 0, 0, 0, 0, 1, 0, 0, 0})
		_ = r.Close()
	},
	"no HTTP/2 at all": func(r *rawPeer) {
		r.open(aStream)
		_, _ = io.WriteString(r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	},
	"a connection lost in the middle": func(r *rawPeer) {
		for range 100 {
			_ = r.WriteData(r.open(aStream), false, message(0, 0))
			_ = r.WriteData(r.open(aCall), false, message(100, 10))
			_ = r.WriteData(r.open(aCall), true, message(0, 0))
		}
		time.Sleep(inTheMiddle)
		_ = r.Close()
	},
}

// flood sends on a stream whatever its window.
func flood(r *rawPeer, stream uint32, n int) {
	for ; n > 0; n -= 16 << 10 {
		_ = r.WriteData(stream, false, make([]byte, 16<<10))
	}
}

// Whatever a peer sends, to a server that is free and to one that refuses everything, with the tap and without: nothing
// is held afterwards, nobody waits, no goroutine is left, and others are served all the while.
func TestHostilePeersLeaveNothing(t *testing.T) {
	for name, attack := range hostile {
		for state, s := range map[string]struct {
			full bool
			opts []Option
		}{
			"free":              {},
			"full":              {full: true},
			"full, without tap": {full: true, opts: []Option{WithoutTap()}},
		} {
			t.Run(name+"/"+state, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { survive(t, attack, s.full, s.opts) })
			})
		}
	}
}

func survive(t *testing.T, attack func(*rawPeer), full bool, opts []Option) {
	var running atomic.Int64
	p := connect(t, &service{
		unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			running.Add(1)
			defer running.Add(-1)
			time.Sleep(workTime) // whether the caller is there or not
			return &testpb.SimpleResponse{}, nil
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			running.Add(1)
			defer running.Add(-1)
			for {
				if _, err := stream.Recv(); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				time.Sleep(workTime)
				if err := stream.Context().Err(); err != nil {
					return err
				}
			}
		},
	}, limit(1, opts...))
	check := func() {
		t.Helper()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("another peer's call: %v", err)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("another peer's call waited for %v", took)
		}
	}
	check()
	listener := p.listen(t)
	empty := func() {}
	if full {
		empty = fill(t, p.server.Limiter())
	}
	synctest.Wait()
	before, stats := goroutines(), p.server.Limiter().Stats()

	r := newRawPeer(t, listener)
	_ = r.WriteData(r.open(aCall), true, message(0, 0))
	time.Sleep(2 * workTime)
	if s := p.server.Limiter().Stats(); s.Admitted == stats.Admitted && s.Refused == stats.Refused {
		t.Error("a proper call of the raw peer was neither admitted nor refused")
	}
	attacked := make(chan struct{})
	go func() { attack(r); close(attacked) }()
	for range 20 {
		check()
		time.Sleep(inTheMiddle)
	}
	<-attacked
	time.Sleep(10 * time.Second)
	_ = r.Close()
	time.Sleep(10 * time.Second)
	if s := p.server.Limiter().Stats(); s.InFlight != stats.InFlight || s.Line != stats.Line {
		t.Errorf("%d in flight and %d in line afterwards, want %d and %d as before", s.InFlight, s.Line, stats.InFlight, stats.Line)
	}
	if n := running.Load(); n != 0 {
		t.Errorf("%d handlers run", n)
	}
	if after := goroutines(); after != before {
		t.Errorf("%d goroutines before and %d after", before, after)
	}
	empty()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		t.Errorf("a call afterwards: %v", err)
	}
}
