package main

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
)

// strengths are how many workers each server has, each of which answers 1/work calls a second.
var strengths = []int{2, 4, 8}

const work = 10 * time.Millisecond

// capacity is how many calls a second all servers together can answer.
func capacity() (all float64) {
	for _, workers := range strengths {
		all += float64(workers) / work.Seconds()
	}
	return all
}

// shop needs a worker for an exponentially distributed time.
type shop struct {
	pb.UnimplementedTestServiceServer
	workers chan struct{}
}

func (s *shop) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	select {
	case s.workers <- struct{}{}:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-s.workers }()
	time.Sleep(time.Duration(rand.ExpFloat64() * float64(work)))
	return &pb.SimpleResponse{}, nil
}

// server is a protected server that counts the calls that come to it, answered or refused.
type server struct {
	*grpc.Server
	calls atomic.Int64
}

// newServer serves on the listener, and tells clients how strong it is.
func newServer(listener net.Listener, workers int) (*server, error) {
	protection, err := interceptors.NewServer(interceptors.WithLoadReports(), interceptors.WithoutTap())
	if err != nil {
		return nil, err
	}
	s := &server{}
	count := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		s.calls.Add(1)
		return handler(ctx, req)
	}
	// Without the tap, which would refuse before anybody counts.
	s.Server = grpc.NewServer(append([]grpc.ServerOption{grpc.ChainUnaryInterceptor(count)}, protection.ServerOptions()...)...)
	pb.RegisterTestServiceServer(s, &shop{workers: make(chan struct{}, workers)})
	// For clients that would rather ask now and then.
	if err := orca.Register(s, orca.ServiceOptions{ServerMetricsProvider: protection.LoadReports()}); err != nil {
		return nil, err
	}
	go func() { _ = s.Serve(listener) }()
	return s, nil
}
