// Package soak runs a limiter and a protected gRPC server for long, with everything that can go wrong with a request
// going wrong at random, and then looks for what is left: nothing is in flight, nobody waits, there are as many
// goroutines as before, and the heap is as large as before. In go test it takes a few seconds. In full, 100 million
// permits and a million calls, it takes minutes, and shows how far it is:
//
//	go test ./benchmarks/soak -v -timeout 1h -args -full
package soak
