// Package conformance holds the tests that a protected server is still a gRPC server like any other:
//
//   - gRPC's interoperability tests (google.golang.org/grpc/interop), without load and under it, with every option on;
//   - the test suite for interceptors of go-grpc-middleware (its testing/testpb), over TCP and TLS;
//   - chains with what servers most often have besides, whichever comes first: OpenTelemetry's stats handler, and the
//     logging, recovery, selector and auth of go-grpc-middleware.
//
// Whatever happens to a call, at the end nothing is in flight, nobody waits, and no goroutine is left.
package conformance
