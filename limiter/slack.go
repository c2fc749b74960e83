package limiter

import (
	"math/bits"
	"time"
)

// slacks counts requests with a deadline by the time that they had left when they came, in octaves.
type slacks struct {
	octaves [64]octave
	seen    uint64 // a bit for each octave that has any
	served  bool   // one of them has got a permit
}

// forEver is 13 days: sums of so much, and what is computed from it, are far from overflow.
const forEver = 1 << 50

type octave struct {
	count int64
	left  float64 // of all together, in nanoseconds
}

func (s *slacks) add(left time.Duration) {
	left = min(max(0, left), forEver)
	i := bits.Len64(uint64(left))
	s.octaves[i].count++
	s.octaves[i].left += float64(left)
	s.seen |= 1 << i
}

// drain adds the counts to what is known and forgets them.
func (s *slacks) drain(into *patience) {
	for ; s.seen != 0; s.seen &= s.seen - 1 {
		i := bits.TrailingZeros64(s.seen)
		into.octaves[i].count += float64(s.octaves[i].count)
		into.octaves[i].left += s.octaves[i].left
		s.octaves[i] = octave{}
	}
	into.served = into.served || s.served
	s.served = false
}

// patience is how much time those who come have left, with forgetting, in octaves.
type patience struct {
	octaves [64]struct{ count, left float64 }
	served  bool // one of them has got a permit in the latest window
}

const (
	// patienceMemory is in windows: a hundred requests at least, so that an eighth of them is no matter of chance.
	patienceMemory = 16

	// impatient is the part of the requests with a deadline that may have less time than the line is made for. Those who have
	// less cannot wait as long as a burst may stand, and are refused while it does. By the mean, a few who have a minute left
	// would have all others refused; by the least, one who has next to nothing would leave no line for anybody.
	impatient = 1. / 8
)

func (p *patience) forget() {
	p.served = false
	for i := range p.octaves {
		p.octaves[i].count -= p.octaves[i].count / patienceMemory
		p.octaves[i].left -= p.octaves[i].left / patienceMemory
	}
}

// typical returns the time that all but the impatient have left, 0 if nobody had a deadline lately.
func (p *patience) typical() time.Duration {
	all := 0.0
	for i := range p.octaves {
		all += p.octaves[i].count
	}
	if !p.served || all < 1 {
		return 0
	}
	i, below := 0, p.octaves[0].count
	for below <= impatient*all {
		i++
		below += p.octaves[i].count
	}
	return max(1, time.Duration(p.octaves[i].left/p.octaves[i].count))
}
