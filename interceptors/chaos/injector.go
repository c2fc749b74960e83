package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
)

// maxHeld bounds how many calls are held, delayed or dropped, at a time: what a flood of calls would do to the memory
// of those that wait for nothing is not what a game is about. Calls beyond it are not hit.
const maxHeld = 10_000

// injector is what a [Server] and a [Client] have in common.
type injector struct {
	side    side
	seed    uint64
	metrics *metrics
	game    atomic.Pointer[game] // nil: off
	held    atomic.Int64
}

// side is where an injector stands.
type side string

const (
	serverSide side = "server"
	clientSide side = "client"
)

func (i *injector) init(at side, opts []Option) error {
	c, err := newConfig(opts)
	if err != nil {
		return err
	}
	i.side, i.seed = at, c.seed
	i.metrics, err = newMetrics(c.meterProvider, at)
	return err
}

// Start puts faults in force, at once, in place of those that were; calls that those hold go on. It may be called at
// any time, from any goroutine, while calls are served. An error says which fault is wrong, what is, and what would be
// right, and leaves all as it was.
//
// The faults are asked in the order given. A call that one has delayed may be hit by the next; one that fails it, drops
// it or panics is its end.
func (i *injector) Start(faults ...Fault) error {
	if len(faults) == 0 || len(faults) > MaxFaults {
		return fmt.Errorf("chaos: Start with %d faults; want 1 to %d, or Stop", len(faults), MaxFaults)
	}
	now := time.Now()
	for n, f := range faults {
		if err := f.check(now, i.side); err != nil {
			return fmt.Errorf("chaos: fault %d: %w", n, err)
		}
	}
	started := make(game, len(faults))
	for n, f := range faults {
		started[n] = f.run(now, mix(i.seed+uint64(n)))
	}
	i.replace(&started)
	return nil
}

// Stop ends all faults at once: no call is hit any more, and those that are held go on, to the handler or the callee,
// as if nothing had been. It may be called at any time, from any goroutine, and more than once.
func (i *injector) Stop() { i.replace(nil) }

func (i *injector) replace(by *game) {
	if old := i.game.Swap(by); old != nil {
		old.stop()
	}
}

// InForce is a fault that is on, or will be.
type InForce struct {
	Fault           // as given, but with the From and Until that came of it, and no For
	Seen     uint64 // calls that it could have hit
	Injected uint64 // calls that it hit
}

// Faults returns what is in force, in the order of Start, without what is over. To JSON it is an operator's to look
// at, with the names of the kinds; a Matcher is left out there.
func (i *injector) Faults() []InForce {
	g := i.game.Load()
	if g == nil {
		return nil
	}
	var all []InForce
	for _, r := range *g {
		if r.over.Err() == nil {
			f := InForce{Fault: r.Fault, Seen: r.seen.Load(), Injected: r.injected.Load()}
			f.Methods = slices.Clone(f.Methods)
			all = append(all, f)
		}
	}
	return all
}

// Seed returns the seed in use: who gives it to [WithSeed] has the same played again.
func (i *injector) Seed() uint64 { return i.seed }

// touching returns the game that a call of the method is part of, or nil.
func (i *injector) touching(method string) *game {
	g := i.game.Load()
	if g != nil && untouched(method) {
		return nil
	}
	return g
}

// inject does to a call what the game has for it. An error is the call's end.
func (i *injector) inject(ctx context.Context, g *game, method string, call middleware.CallMeta) error {
	for _, r := range *g {
		if !r.picks(ctx, method, call) {
			continue
		}
		if err := i.strike(ctx, r, method); err != nil {
			return err
		}
	}
	return nil
}

func (i *injector) strike(ctx context.Context, r *running, method string) error {
	defer i.held.Add(-1)
	if i.held.Add(1) > maxHeld {
		return nil
	}
	r.injected.Add(1)
	i.metrics.count(ctx, r.Kind, method)
	return r.strike(ctx)
}
