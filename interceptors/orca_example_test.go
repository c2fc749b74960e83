package interceptors_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/orca"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// A server whose clients share calls by the balancer weighted_round_robin.
func ExampleWithLoadReports() {
	protection, err := interceptors.NewServer(interceptors.WithLoadReports())
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(protection.ServerOptions()...)
	defer srv.Stop()
	fmt.Println(protection.SetOptions(interceptors.WithLoadReports()))
	// Output: interceptors: WithLoadReports cannot be changed while serving; want it in NewServer, and not in SetOptions
}

// Clients that ask for reports out of band find them at gRPC's own service.
func ExampleServer_LoadReports() {
	protection, err := interceptors.NewServer(interceptors.WithLimiterOptions(limiter.WithFixedLimit(4)))
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(protection.ServerOptions()...)
	defer srv.Stop()
	if err := orca.Register(srv, orca.ServiceOptions{ServerMetricsProvider: protection.LoadReports()}); err != nil {
		fmt.Println(err)
		return
	}
	_, _ = protection.Limiter().Acquire(context.Background())
	report := protection.LoadReports().ServerMetrics()
	fmt.Println(len(srv.GetServiceInfo()), "service;", report.QPS, "requests/s yet")
	// Output: 1 service; 0 requests/s yet
}
