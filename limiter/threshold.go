package limiter

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/spillway-go/spillway/feedback"
	"github.com/spillway-go/spillway/littles"
)

// place is where a request stands in the order in which requests are refused, 0 first: by criticality, and inside a
// criticality by cohort.
//
// Refusing by cohorts rather than by chance refuses the same few for a while, who then can do something else,
// instead of a part of what everybody wants (Zhou et al., Overload Control for Scaling WeChat Microservices, SoCC
// 2018, section 4.2).
type place uint16

const (
	cohortBits = 7
	cohorts    = 1 << cohortBits
	places     = levels * cohorts
)

func placeOf(level, cohort int) place { return place(level*cohorts + cohort) }

func (p place) level() int  { return int(p) / cohorts }
func (p place) cohort() int { return int(p) % cohorts }

// census adds up the work that comes, by place. Most windows see few places, so that it keeps a note of which.
type census struct {
	work [places]float64
	seen [places / 64]uint64
}

func (c *census) add(p place, work float64) {
	c.work[p] += work
	c.seen[p/64] |= 1 << (p % 64)
}

// drain adds the work to a sum, empties the census and returns how much it held.
func (c *census) drain(into *[places]float64) (all float64) {
	for i := range c.seen {
		for left := c.seen[i]; left != 0; left &= left - 1 {
			p := i*64 + bits.TrailingZeros64(left)
			into[p] += c.work[p]
			all += c.work[p]
			c.work[p] = 0
		}
		c.seen[i] = 0
	}
	return all
}

// threshold turns the share that has to be refused into a cut through the places: whoever stands below it is
// refused at once, before anything waits or is read.
type threshold struct {
	// offered is the load that lately came for each place. 1 is as much as can be served.
	offered [places]float64

	// steady is the same, remembered for longer where few come: so that chance moves it by less than spare.
	steady [places]float64

	loads [levels]float64 // offered for a level and all above it
	lines [levels]int     // how many may wait in a standing line where that comes
	cut   place           // the first that may pass
	fits  place           // the first of those that can all be served, by what is steady
}

const (
	// loadMemory is how long the load is remembered, in full credits of the line: longer than a burst lasts, so that
	// its end is no lull.
	loadMemory = 2

	// steadyMemory is how many requests steady remembers at least: by n requests a load is known to one part in the root
	// of 2n, which is less than half of spare.
	steadyMemory = 300

	// surplus is how much more than can be served the cut lets pass: enough that the line is seldom empty, which costs
	// goodput (.25: 5% of it with ten workers). The line chooses among them: it knows who is here now.
	surplus = 1

	// spare is what is left of the service when those above fits are served: at full load a line has no end.
	spare = 0.1
)

// observe takes in the work that came in a window.
func (t *threshold) observe(s feedback.Sample, came *[places]float64, p pace) {
	memory := loadMemory * p.fullCredit()
	part, steadyPart := forgotten(s.Length(), memory), forgotten(s.Length(), max(memory, p.wait(steadyMemory*p.cost())))
	each := p.load(littles.PerSecond(1, s.Length()), s)
	t.cut, t.fits = 0, 0
	sum, steady := 0.0, 0.0
	for level := levels - 1; level >= 0; level-- {
		for cohort := cohorts - 1; cohort >= 0; cohort-- {
			at := placeOf(level, cohort)
			t.offered[at] += part * (each*came[at] - t.offered[at])
			sum += t.offered[at]
			t.steady[at] += steadyPart * (each*came[at] - t.steady[at])
			steady += t.steady[at]
			if t.fits == 0 && steady > 1-spare {
				t.fits = at + 1
			}
			if t.cut == 0 && sum > 1+surplus {
				t.cut = at
			}
		}
		t.loads[level], t.lines[level] = sum, standingLine(sum)
	}
	if t.cut > 0 {
		t.fits = max(t.fits, t.cut+1)
	}
}

// forgotten returns which part of what was known is forgotten in a time: all of it where nothing is remembered.
func forgotten(elapsed, memory time.Duration) float64 {
	if memory <= 0 {
		return 1
	}
	return -math.Expm1(-float64(elapsed) / float64(memory))
}

// cohortTurn is how long a tenant keeps its cohort, and fairMemory how long it is remembered what it had, both in
// full credits of the line: long enough that a client whose requests are refused notices and stays away, and that
// an open burst is paid back.
const (
	cohortTurn = 20
	fairMemory = 20
)

// lightest is what a tenant counts for at least, in fair shares, so that newcomers do not all stand in one place.
const lightest = 1. / 4

// placeFor returns the place of a request. A deadline of 0 is none.
//
// The cohorts of a tenant begin where its hash says, and are as many as its part of the service: a small one stands in
// one place, and is refused or served as a whole; one that has everything stands everywhere. Then what it had lately
// moves it, which sets those first to be refused who had the most.
func (l *Limiter) placeFor(r *Request, level int, deadline time.Duration) place {
	call := uint64(deadline) // in nanoseconds: as good as chance
	if deadline == 0 {
		call = rand.Uint64()
	}
	chance := scatter(call)
	if r.Tenant == 0 {
		return placeOf(level, int(chance>>(64-cohortBits)))
	}
	shares := l.usage.shares(uint64(r.Tenant))
	begin := unit(scatter(uint64(r.Tenant) ^ l.salt.Load()))
	_, u := math.Modf(begin + unit(chance)*shares/l.usage.active())
	return placeOf(level, min(cohorts-1, int(moved(u, shares)*cohorts)))
}

// moved returns where in a criticality a tenant stands that its hash sets at u, in [0, 1), and that had so many fair
// shares: 1 / (1 + s w), where w, the 16th root of -ln u, falls from 1.1 to .7 for all but a hundredth of the hashes.
//
// Who had 1.6 times as much as another thus stands behind it wherever their hashes are, so that equal tenants cannot
// be further apart for long. It is the order of u^(s^16), on a scale on which those who had a hundredth of a share, or a
// hundred, still differ: where a crowd makes shares small, whoever had one is told from whoever had all.
func moved(u, shares float64) float64 {
	return 1 / (1 + max(shares, lightest)*math.Sqrt(math.Sqrt(math.Sqrt(math.Sqrt(-math.Log(u))))))
}

// turnOver forgets what tenants had long ago and, now and then, deals their cohorts anew.
func (l *Limiter) turnOver(now, elapsed time.Duration) {
	full := max(l.pace.fullCredit(), l.pace.service)
	l.usage.decay(elapsed, fairMemory*full)
	if now-l.turned > cohortTurn*full {
		l.turned = now
		l.salt.Store(scatter(l.salt.Load() + 1))
	}
}

// scatter spreads the bits of x: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
func scatter(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit makes a number in [0, 1) of a hash.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
