package soak

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// caller makes one call after the other, each in another way.
type caller struct {
	client testpb.TestServiceClient
	dice   *rand.Rand
	ends   map[string]int // how often calls ended like this
}

// turn makes a call that is sent, and reports false for one that was not.
func (c *caller) turn(ctx context.Context) (sent bool) {
	ctx, cancel := c.context(ctx)
	defer cancel()
	ctx = limiter.ContextWithCriticality(ctx, limiter.Criticality(c.dice.IntN(5)))
	ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant", strconv.Itoa(c.dice.IntN(100)))
	calls := []struct {
		name string
		make func(context.Context) error
	}{
		{"unary", c.unary}, {"unary", c.unary}, {"unary", c.unary}, {"unary", c.unary},
		{"duplex", c.duplex}, {"input", c.input}, {"output", c.output}, {"slow reader", c.slowReader}, {"abandoned", c.abandon},
	}
	call := calls[c.dice.IntN(len(calls))]
	err := call.make(ctx)
	c.ends[call.name+": "+end(err)]++
	return !errors.Is(err, interceptors.ErrNotSent)
}

// end returns the name of how a call ended.
func end(err error) string {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == interceptors.Domain {
			return "refused (" + info.GetReason() + ")"
		}
	}
	if interceptors.IsRefusal(err) {
		return "refused"
	}
	return s.Code().String()
}

// context returns one that is cancelled soon, has little time, has enough, or ends only with the turn.
func (c *caller) context(ctx context.Context) (context.Context, context.CancelFunc) {
	switch c.dice.IntN(8) {
	case 0:
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Duration(c.dice.IntN(40))*moment, cancel)
		return ctx, cancel
	case 1:
		return context.WithTimeout(ctx, time.Duration(1+c.dice.IntN(40))*moment)
	case 2:
		return context.WithCancel(ctx)
	default:
		return context.WithTimeout(ctx, 50*service)
	}
}

// way is how the work is to end: most often well.
func (c *caller) way() *testpb.EchoStatus {
	switch c.dice.IntN(20) {
	case 0:
		return &testpb.EchoStatus{Code: int32(codes.NotFound)}
	case 1:
		return &testpb.EchoStatus{Code: int32(codes.Aborted)}
	case 2:
		return &testpb.EchoStatus{Code: int32(panicking)}
	default:
		return nil
	}
}

func (c *caller) unary(ctx context.Context) error {
	_, err := c.client.UnaryCall(ctx, &testpb.SimpleRequest{
		ResponseStatus: c.way(), Payload: payload(c.dice.IntN(2000)), ResponseSize: int32(c.dice.IntN(2000)),
	})
	return err
}

func (c *caller) duplex(ctx context.Context) error {
	stream, err := c.client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range c.dice.IntN(4) {
		// What is wrong with it, Recv says.
		_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: c.way(), Payload: payload(c.dice.IntN(2000))})
		if _, err := stream.Recv(); err != nil {
			return err
		}
		time.Sleep(time.Duration(c.dice.IntN(20)) * moment) // an idle stream
	}
	_ = stream.CloseSend()
	_, err = stream.Recv()
	return answered(err)
}

func (c *caller) input(ctx context.Context) error {
	stream, err := c.client.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	for range c.dice.IntN(4) {
		_ = stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(c.dice.IntN(2000))})
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (c *caller) output(ctx context.Context) error { return c.read(ctx, 1000, 0) }

// slowReader is asked for more than fits on the way, and reads it with pauses.
func (c *caller) slowReader(ctx context.Context) error { return c.read(ctx, 100_000, 5*moment) }

func (c *caller) read(ctx context.Context, size int32, pause time.Duration) error {
	r := &testpb.StreamingOutputCallRequest{ResponseStatus: c.way()}
	for range 4 {
		r.ResponseParameters = append(r.ResponseParameters, &testpb.ResponseParameters{Size: size})
	}
	stream, err := c.client.StreamingOutputCall(ctx, r)
	for err == nil {
		time.Sleep(pause)
		_, err = stream.Recv()
	}
	return answered(err)
}

// abandon leaves a stream to itself: it is over when its context is, which the turn's end sees to.
func (c *caller) abandon(ctx context.Context) error {
	stream, err := c.client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&testpb.StreamingOutputCallRequest{})
	time.Sleep(time.Duration(c.dice.IntN(20)) * moment)
	return nil
}

// answered returns what a stream ended with.
func answered(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
