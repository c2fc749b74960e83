package interceptors_test

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// A new table is put in force as a whole, and a wrong one not at all.
func ExampleServer_SetOptions() {
	protection, err := interceptors.NewServer(
		interceptors.WithMethodCriticality(map[string]limiter.Criticality{"/acme.v1.Shop/Pay": limiter.CriticalPlus}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	serve := func() {
		for _, method := range []string{"/acme.v1.Shop/Pay", "/acme.v1.Shop/Report"} {
			_, _ = protection.UnaryInterceptor()(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: method},
				func(ctx context.Context, _ any) (any, error) {
					fmt.Println(method, limiter.CriticalityFromContext(ctx))
					return nil, nil
				})
		}
	}
	serve()
	for _, key := range []string{"/acme.v1.Shop/Report", "Report"} {
		fmt.Println(protection.SetOptions(
			interceptors.WithMethodCriticality(map[string]limiter.Criticality{key: limiter.Sheddable})))
		serve()
	}
	// Output:
	// /acme.v1.Shop/Pay CRITICAL_PLUS
	// /acme.v1.Shop/Report UNSPECIFIED
	// <nil>
	// /acme.v1.Shop/Pay UNSPECIFIED
	// /acme.v1.Shop/Report SHEDDABLE
	// interceptors: WithMethodCriticality: the key "Report"; want a full method like "/pkg.Service/Method", or "/pkg.Service/*" for all of a service
	// /acme.v1.Shop/Pay UNSPECIFIED
	// /acme.v1.Shop/Report SHEDDABLE
}

// A page for those on call shows what is in force.
func ExampleServer_Settings() {
	protection, err := interceptors.NewServer(
		interceptors.WithMethodCriticality(map[string]limiter.Criticality{"/acme.v1.Reports/*": limiter.Sheddable}),
		interceptors.WithTenant(interceptors.TenantFromMethod()),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	page, err := json.MarshalIndent(protection.Settings(), "", "  ")
	fmt.Println(string(page), err)
	// Output:
	// {
	//   "Methods": {
	//     "/acme.v1.Reports/*": "SHEDDABLE"
	//   },
	//   "Ceiling": "CRITICAL",
	//   "Baggage": false,
	//   "CriticalityFunc": false,
	//   "TenantFunc": true,
	//   "WeightFunc": false,
	//   "OutcomeFunc": false,
	//   "Exemptions": 0,
	//   "DryRun": false,
	//   "DryRuns": 0,
	//   "BulkheadRules": [],
	//   "Bulkheads": [],
	//   "Costs": null,
	//   "Limit": 20
	// } <nil>
}

// What came with a request is carried on up to a ceiling, which can be changed.
func ExampleClient_SetOptions() {
	client, err := interceptors.NewClient()
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := grpc.NewClient("passthrough:///next", append(client.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Printf("%+v\n", client.Settings())
	fmt.Println(client.SetOptions(interceptors.WithCriticalityCeiling(limiter.CriticalPlus)))
	fmt.Printf("%+v\n", client.Settings())
	// Output:
	// {Ceiling:CRITICAL Baggage:false LeastDeadline:1s MostDeadline:5m0s Breaker:true Handover:false Fallbacks:0}
	// <nil>
	// {Ceiling:CRITICAL_PLUS Baggage:false LeastDeadline:1s MostDeadline:5m0s Breaker:true Handover:false Fallbacks:0}
}
