package interceptors

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/spillway-go/spillway/limiter"
)

// details says which refusals in the tap carry details: for each connection and reason the first ten of a second. gRPC
// encodes details anew for each refusal, which is a fifth of what one costs, and who is refused more often than that has
// just been told.
//
// The table has a fixed size. Those who meet in a slot take it from each other, and begin to count anew: a connection
// can only be told more often for the sake of others, and never less. The zero value is not ready for use.
type details struct {
	seed  maphash.Seed
	slots [detailSlots]atomic.Uint64 // the hash of who has it, save for the last bits, which count
}

const (
	detailSlots    = 4096 // 32 KB
	detailsASecond = 10
	detailCount    = 1<<4 - 1 // the bits that count
)

func newDetails() *details { return &details{seed: maphash.MakeSeed()} }

// due counts a refusal, and reports whether it is to carry details. Of those that are counted in the same instant one
// may be lost, and one more told.
func (d *details) due(ctx context.Context, reason limiter.Reason, now time.Time) bool {
	connection, ok := peer.FromContext(ctx) // gRPC has one for each
	if !ok {
		return true
	}
	hash := maphash.Comparable(d.seed, struct {
		connection *peer.Peer
		reason     limiter.Reason
		second     int64
	}{connection, reason, now.Unix()})
	slot := &d.slots[hash/(detailCount+1)%detailSlots]
	word, first := slot.Load(), hash&^detailCount
	switch {
	case word&^detailCount != first:
		slot.Store(first + 1)
	case word&detailCount == detailsASecond:
		return false
	default:
		slot.Store(word + 1)
	}
	return true
}
