package lab

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Fleet is a load of many clients on services that call each other, all servers protected by Spillway. Each client has a
// connection of its own, and each server one to every service that it calls. Calls go to the servers of a service in
// turn.
type Fleet struct {
	Scenario                   // of which each tenant is a client, and the station what all servers can do at best
	Services []Service         // none calls one before it
	Entries  []int             // the services that clients call, the first client the first and so on; nil: all the first
	Script   func(*fleetHosts) // what happens to the servers, from the start of the load on; nil: nothing
}

// Service is some servers that are alike.
type Service struct {
	Servers int
	Workers int   // of each server
	Calls   []int // the services that a request calls after its own work, all at once; all have to answer
}

// clients returns the tenants of a scenario that are so many clients.
func clients(n int) []float64 { return slices.Repeat([]float64{1 / float64(n)}, n) }

// entry returns the service that a client calls.
func (f Fleet) entry(client int) int {
	if f.Entries == nil {
		return 0
	}
	return f.Entries[client%len(f.Entries)]
}

// needs returns how many calls of each service a request of a client takes.
func (f Fleet) needs(client int) []int {
	needs := make([]int, len(f.Services))
	needs[f.entry(client)] = 1
	for i, s := range f.Services {
		for _, callee := range s.Calls {
			needs[callee] += needs[i]
		}
	}
	return needs
}

// sizeAt draws how long the work of a service for a request takes.
func (f Fleet) sizeAt(service, number int, seed uint64) time.Duration {
	return f.Sizes(rand.New(rand.NewPCG(seed, uint64(number)<<8+uint64(service))), f.Mean)
}

// bottleneck returns the service whose workers have most to do with all requests, by the sizes as they were drawn there.
// Of ten alike, one has some per cent more than the mean.
func (f Fleet) bottleneck(all []request, seed uint64) int {
	busy := make([]float64, len(f.Services))
	needs := map[int][]int{} // by client
	for _, r := range all {
		if needs[r.tenant] == nil {
			needs[r.tenant] = f.needs(r.tenant)
		}
		for i, n := range needs[r.tenant] {
			if n > 0 {
				busy[i] += float64(n) * f.sizeAt(i, r.number, seed).Seconds() / float64(f.Services[i].Servers*f.Services[i].Workers)
			}
		}
	}
	return slices.Index(busy, slices.Max(busy))
}

// RunFleet plays a fleet in which all callers, clients and servers that call others, have the same. gRPC draws the jitter
// of its retries without a seed, so that the figures of a fleet with retries differ a little from run to run.
func RunFleet(t *testing.T, f Fleet, c Caller, seed uint64) FleetFigures {
	var figures FleetFigures
	synctest.Test(t, func(t *testing.T) {
		figures = runFleet(t, f, c, seed)
	})
	return figures
}

func runFleet(t *testing.T, f Fleet, c Caller, seed uint64) FleetFigures {
	time.Sleep(time.Hour) // for callers that measure from a clock started outside the bubble
	all := f.load(seed)
	bottleneck := f.bottleneck(all, seed)
	for i := range all { // the ideal is of the sizes there
		all[i].size = f.sizeAt(bottleneck, all[i].number, seed)
	}
	ideal := f.ideal(all)
	books := newFleetBooks(f, seed, all)
	hosts := startHosts(t, f, c, books)
	var conns []*grpc.ClientConn
	for i := range f.Tenants {
		conns = append(conns, hosts.connect(f.entry(i), true))
	}
	synctest.Wait() // until all are connected
	time.Sleep(next(clock(), 0, 0) - clock())
	books.open()
	var open sync.WaitGroup
	stopClock := books.clock()
	if f.Script != nil {
		open.Go(func() { f.Script(hosts) })
	}
	for i, req := range all {
		time.Sleep(time.Until(books.start.Add(req.at)))
		open.Go(func() { books.play(&books.journeys[i], conns[req.tenant]) })
	}
	open.Wait()
	stopClock()
	for _, conn := range conns {
		_ = conn.Close()
	}
	hosts.stop()
	return books.figures(c, ideal)
}

// play sends a request on its journey.
func (b *fleetBooks) play(j *journey, conn *grpc.ClientConn) {
	b.offer(j.request)
	v := b.try(j.request)
	ctx, cancel := context.WithDeadline(context.Background(), v.sent.Add(b.fleet.Deadline+deadlineLag))
	defer cancel()
	j.end(v.end(send(ctx, conn, j)))
}

// clock keeps the trace until it is stopped.
func (b *fleetBooks) clock() (stop func()) {
	done := make(chan struct{})
	go func() {
		time.Sleep(tickPlace)
		points := time.NewTicker(pointEvery)
		defer points.Stop()
		for {
			b.point(0)
			select {
			case <-points.C:
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// fleetMethod is what all services have.
const fleetMethod = "Do"

// send calls a service for a request, which carries only its number.
func send(ctx context.Context, conn *grpc.ClientConn, j *journey) error {
	ctx = context.WithValue(ctx, journeyKey{}, j)
	return conn.Invoke(ctx, "/"+service+"/"+fleetMethod, wrapperspb.Int64(int64(j.number)), &emptypb.Empty{})
}
