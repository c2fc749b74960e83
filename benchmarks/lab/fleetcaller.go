package lab

import (
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivethrottler"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/interceptors"
)

// Caller is what callers have, clients and servers alike. The methods of a fleet are idempotent.
type Caller struct {
	Name string
	dial func() []grpc.DialOption // for one connection
}

// Callers returns all of them, in the order of the table.
func Callers() []Caller {
	return []Caller{
		{"spillway", spillwayCaller},
		{"bare", configured(roundRobin)},
		{"grpc-retries", configured(grpcRetries)},
		{"failsafe", failsafeCaller},
	}
}

const (
	roundRobin  = `{"loadBalancingConfig": [{"round_robin": {}}]}`
	grpcRetries = `{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}}]}`
)

func configured(serviceConfig string) func() []grpc.DialOption {
	return func() []grpc.DialOption { return []grpc.DialOption{grpc.WithDefaultServiceConfig(serviceConfig)} }
}

// spillwayCaller is the caller's side as its users have it, but that nothing is exported.
func spillwayCaller() []grpc.DialOption {
	client, err := interceptors.NewClient(
		interceptors.WithIdempotent("/"+service+"/*"),
		interceptors.WithServiceConfig(roundRobin),
		interceptors.WithMeterProvider(noop.NewMeterProvider()))
	if err != nil {
		panic(err)
	}
	return append(client.DialOptions(), interceptors.ConnectionOptions()...)
}

// failsafeCaller retries what failsafe's own policy for gRPC does, after the same times as the others and within its
// budget, and throttles each attempt; their settings are its defaults.
func failsafeCaller() []grpc.DialOption {
	retries := failsafegrpc.NewRetryPolicyBuilder[any]().WithBackoff(100*time.Millisecond, time.Second).
		WithJitterFactor(.2).WithBudget(budget.New()).ReturnLastFailure().Build()
	throttler := adaptivethrottler.NewWithDefaults[any]()
	return append(configured(roundRobin)(),
		grpc.WithChainUnaryInterceptor(failsafegrpc.NewUnaryClientInterceptor[any](retries, throttler)))
}
