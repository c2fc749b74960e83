// Quickstart is the smallest protected server, and a client that calls it.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
)

// greeter is a service like any other: it knows nothing of Spillway.
type greeter struct {
	pb.UnimplementedTestServiceServer
}

func (greeter) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Username: "gopher"}, nil
}

func main() {
	answer, err := run()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("The protected server answers:", answer)
}

// run serves on loopback, asks once and stops.
func run() (string, error) {
	srv := grpc.NewServer(interceptors.ServerOptions()...) // this line protects the server
	pb.RegisterTestServiceServer(srv, greeter{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = srv.Serve(listener) }()
	defer srv.GracefulStop()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // the deadline travels with the request
	defer cancel()
	reply, err := pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{})
	return reply.GetUsername(), err
}
