package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
)

// The time that a server takes to end, in all less than what the orchestrator gives it before it kills: 30 s, say.
const (
	notice   = time.Second      // in which load balancers and health checks see that it is not ready
	patience = 20 * time.Second // in which what was begun is finished
	grace    = 5 * time.Second  // in which connections are closed
)

// shop answers after a while.
type shop struct {
	pb.UnimplementedTestServiceServer
	name string
}

func (s shop) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	time.Sleep(100 * time.Millisecond)
	return &pb.SimpleResponse{ServerId: s.name}, nil
}

// serve serves on the listener, and answers HTTP probes on the other, until ctx ends; then it finishes what it has begun.
func serve(ctx context.Context, name string, listener, probes net.Listener) error {
	protection, err := interceptors.NewServer()
	if err != nil {
		return err
	}
	defer protection.Close()
	srv := grpc.NewServer(protection.ServerOptions()...)
	pb.RegisterTestServiceServer(srv, shop{name: name})
	healthpb.RegisterHealthServer(srv, protection.Health())

	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", protection.ServeReady)
	mux.HandleFunc("/livez", protection.ServeLive)
	probed := &http.Server{Handler: mux}
	defer probed.Close() // last of all: a server that drains is alive
	go func() { _ = probed.Serve(probes) }()

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return end(protection, srv)
	}
}

// end is the whole order.
func end(protection *interceptors.Server, srv *grpc.Server) error {
	protection.Health().Shutdown()
	time.Sleep(notice)

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := protection.Drain(ctx) // new work is sent elsewhere, the rest is finished

	stop := time.AfterFunc(grace, srv.Stop)
	defer stop.Stop()
	srv.GracefulStop()
	return err
}
