// Package idempotency lets callers repeat calls that must not be done twice, such as payments. A caller gives each such
// call a key of its own, and sends the same key whenever it repeats it:
//
//	ctx = idempotency.ContextWithKey(ctx, idempotency.NewKey())
//	_, err := client.Pay(ctx, order) // gRPC's own retries send the key again
//
// A server does the work for a key once, keeps the answer, and gives it to every repeat:
//
//	keys, err := idempotency.NewServer(idempotency.CallerFromCertificate())
//	srv := grpc.NewServer(append(interceptors.ServerOptions(), keys.ServerOptions()...)...)
//
// The interceptor belongs inside of (after) Spillway's own, so that what is refused costs no look into the store, and
// after whatever authenticates callers. Calls without a key pass as if it were not there. Keys are for unary calls.
//
// A call with a key ends in one of these ways:
//
//   - It is the first: the handler works, and its answer is stored before the caller gets it. OK is stored, and so is
//     every error that is [Final]. After an error that is not, such as UNAVAILABLE, a repeat is worked on again.
//   - It is a repeat: it gets the stored answer. While the first is still being worked on it waits, as long as its
//     deadline and [WithWait] allow, and is then told UNAVAILABLE.
//   - The key cannot be read, or is that of another request: INVALID_ARGUMENT. Nobody knows the caller:
//     UNAUTHENTICATED.
//   - The store fails: UNAVAILABLE. It has no room: RESOURCE_EXHAUSTED.
//
// Who works on a key has claimed it, for the time of a lease ([WithLease]). Whoever dies, panics or cannot store the
// answer leaves the claim behind, and when the lease has ended, a repeat is worked on as if it were the first. So a
// handler has to leave nothing half done: what it does belongs into one transaction. Only if the store is part of that
// transaction too, the work is done exactly once; otherwise it is done again by a repeat after a crash between the
// handler's end and the answer's being stored.
//
// The server answers for a call only once the answer is stored. Until then the caller does, who repeats it.
//
// The semantics are those of the IETF draft "The Idempotency-Key HTTP Header Field", with gRPC's codes.
package idempotency
