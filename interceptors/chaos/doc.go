// Package chaos injects faults into gRPC servers and clients, for game days: to see what a service and those around it
// do when calls are late, fail, get no answer or panic, at an hour that you choose and not at one that chooses you.
//
//	faults, err := chaos.NewServer()
//	srv := grpc.NewServer(append(interceptors.ServerOptions(), faults.ServerOptions()...)...)
//
// Nothing is injected until somebody says what, for whom and for how long:
//
//	err = faults.Start(chaos.Fault{
//		Kind: chaos.Error, Code: codes.Unavailable,
//		Share: .01, Methods: []string{"/acme.v1.Shop/*"}, For: 10 * time.Minute,
//	})
//	...
//	faults.Stop()
//
// The blast radius has no defaults: without methods, a share and an end nothing starts, and all calls of all methods are
// hit only where that is said in so many words ([Fault].AllCalls). At its end, and at Stop at once, a fault is over for
// everybody, those whom it holds too. gRPC's health and reflection services are never hit: a game day is to show what
// the platform does to a service that is in trouble, not to one that it takes for dead.
//
// The interceptors belong inside of (after) Spillway's own, as above: what they do then looks like the handler's own
// trouble, or a client's callee's, which is what Spillway is to deal with. Outside of it they would only delay and fail
// what Spillway never sees.
//
// Off, an interceptor costs one atomic load. Whom no fault hits pays up to three look-ups in a map for each, and what the
// matchers cost, and nothing is allocated. docs/chaos.md says how to run a game day.
package chaos
