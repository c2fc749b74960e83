package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
)

// deadline is the time that each caller waits for its answer: all serious callers have one.
const deadline = 5 * time.Second

// turn makes calls and returns what one of them cost the server, in microseconds.
func (s *server) turn(p plan, size int) (float64, error) {
	before, err := s.used()
	if err != nil {
		return 0, err
	}
	if err := s.call(p, size); err != nil {
		return 0, err
	}
	after, err := s.used()
	return float64((after - before).Microseconds()) / float64(p.calls), err
}

// call makes the calls of a turn, and checks that each ends as the server's role says.
func (s *server) call(p plan, size int) error {
	client := grpc_testing.NewTestServiceClient(s.conn)
	request := &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
	failed := make(chan error, p.callers)
	for i := range p.callers {
		go func() {
			var err error
			for range (p.calls + i) / p.callers { // adds up to p.calls
				if err == nil {
					err = s.one(client, request)
				}
			}
			failed <- err
		}()
	}
	var first error
	for range p.callers {
		if err := <-failed; first == nil {
			first = err
		}
	}
	return first
}

func (s *server) one(client grpc_testing.TestServiceClient, request *grpc_testing.SimpleRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var trailer metadata.MD
	_, err := client.UnaryCall(ctx, request, grpc.Trailer(&trailer))
	want := codes.ResourceExhausted
	if s.role == bare || s.role == served {
		want = codes.OK
	}
	if code := status.Code(err); code != want {
		return fmt.Errorf("a call ended with %v (%w); want %v", code, err, want)
	}
	if ours := interceptors.IsRefusal(err); ours != (s.role == tap || s.role == interceptor) {
		return fmt.Errorf("a call ended with %w; want a refusal of Spillway's where it refuses, and nowhere else", err)
	}
	// Only the interceptor can send trailers.
	if sent := len(trailer.Get("grpc-retry-pushback-ms")) > 0; sent != (s.role == interceptor) {
		return fmt.Errorf("a call ended with the trailers %v; want a pushback from the interceptor and from nobody else", trailer)
	}
	return nil
}
