// Package interceptors protects gRPC servers from overload.
//
// Two lines are enough:
//
//	srv := grpc.NewServer(interceptors.ServerOptions()...)
//	pb.RegisterGreeterServer(srv, &greeter{})
//
// A request passes three gates: the tap, which can say no before the message is read; the interceptor, where a
// [limiter.Limiter] gives a permit, a place in the line or a refusal; and on the way back the permit's release,
// which tells the limiter how the work ended. Streams pass the same gates when they open; afterwards only a
// message being worked on counts as in flight.
//
// A refusal is the status RESOURCE_EXHAUSTED with an ErrorInfo (its domain is [Domain], its reason a
// [limiter.Reason] in upper case) and, where asking again may help, a RetryInfo; from the interceptor also with
// the trailer grpc-retry-pushback-ms, which gRPC's own retries obey. Of the refusals in the tap, those after the first
// ten that a connection gets in a second for the same reason are the code and the message alone, for details are dear.
// Callers know both kinds by [IsRefusal]. To interceptors outside of these, a refusal is also the [limiter.Refusal]
// itself: errors.Is(err, limiter.ErrRefused) tells it from a callee's RESOURCE_EXHAUSTED.
//
// How critical a request is, says the first of these who says anything: the function of [WithCriticality], the table
// of [WithMethodCriticality], the caller's metadata ([CriticalityHeader]) and, with [WithCriticalityBaggage], its
// baggage. A caller is believed up to [WithCriticalityCeiling]. The handler finds the answer in its context, and
// clients with [DialOptions] carry it on:
//
//	conn, err := grpc.NewClient(target, append(interceptors.DialOptions(), ...)...)
//
// gRPC's own services (health, reflection, load reports) are exempt: a server that is busy is not dead.
package interceptors
