package lab

import (
	"container/heap"
	"sync"
	"time"
)

// Station is where the work is done. Do blocks, in virtual time, until the work of a request of the given size is
// done; nothing interrupts it, as nothing interrupts a database at work. Any goroutine may call any method of it, but
// no two call Do at the same instant.
type Station interface {
	Do(who sleeper, size time.Duration)
	// Capacity returns the most requests of a mean size that can be done a second now.
	Capacity(mean time.Duration) float64
}

// Pool is a number of workers with a wait without bound in front of them, in the order of arrival.
type Pool struct {
	mu       sync.Mutex // guards all below; never held while somebody waits or works
	workers  int
	busy     int
	waiting  []chan struct{}
	slowness float64 // a worker takes the size of a request times this for it
	frozen   bool
}

// NewPool returns a pool of idle workers.
func NewPool(workers int) *Pool { return &Pool{workers: workers, slowness: 1} }

// Do waits for a worker and uses it.
func (p *Pool) Do(who sleeper, size time.Duration) {
	if turn := p.enter(); turn != nil {
		<-turn
	}
	p.mu.Lock()
	takes := time.Duration(float64(size) * p.slowness)
	p.mu.Unlock()
	who.sleep(takes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	p.next()
}

// enter takes a worker, or returns what is closed when it is this one's turn.
func (p *Pool) enter() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy < p.workers && !p.frozen {
		p.busy++
		return nil
	}
	turn := make(chan struct{})
	p.waiting = append(p.waiting, turn)
	return turn
}

// next gives free workers to those who wait. The caller holds mu.
func (p *Pool) next() {
	for p.busy < p.workers && len(p.waiting) > 0 && !p.frozen {
		p.busy++
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
	}
}

// Resize changes the number of workers. Those at work finish.
func (p *Pool) Resize(workers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers = workers
	p.next()
}

// Slow makes all work that starts from now on take so many times its size.
func (p *Pool) Slow(times float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowness = times
}

// Freeze stops workers from taking new work for a time, like a pause for garbage collection.
func (p *Pool) Freeze(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
	time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.frozen = false
		p.next()
	})
}

// Capacity is that of all workers.
func (p *Pool) Capacity(mean time.Duration) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return float64(p.workers) / (mean.Seconds() * p.slowness)
}

// Delay is a callee with room for all: everybody takes the same time, however many there are.
type Delay struct {
	mu   sync.Mutex // guards time
	time time.Duration
}

// NewDelay returns a callee that takes a time for everything.
func NewDelay(d time.Duration) *Delay { return &Delay{time: d} }

// Do takes the delay, whatever the size.
func (d *Delay) Do(who sleeper, _ time.Duration) {
	d.mu.Lock()
	takes := d.time
	d.mu.Unlock()
	who.sleep(takes)
}

// Slow makes everything from now on take so many times as long as now.
func (d *Delay) Slow(times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.time *= time.Duration(times)
}

// Capacity is without bound.
func (d *Delay) Capacity(time.Duration) float64 { return 1e12 }

// Shared is processor sharing on a number of cores that lose a share of their speed to coherence for every job
// above their number: the universal scalability law with its knee at the number of cores (N. J. Gunther,
// Guerrilla Capacity Planning, chapter 4).
type Shared struct {
	cores float64
	loss  float64 // for each job above cores

	mu      sync.Mutex // guards all below; never held while somebody waits
	jobs    jobs
	done    float64 // work that every job present has got so far, in seconds
	counted time.Time
	timer   *time.Timer
}

// NewShared returns idle cores.
func NewShared(cores int, loss float64) *Shared { return &Shared{cores: float64(cores), loss: loss} }

// speed returns how much work each of n jobs gets a second. It reads what never changes.
func (s *Shared) speed(n float64) float64 {
	if n <= s.cores {
		return 1
	}
	return s.cores / n / (1 + s.loss*(n-s.cores))
}

// Do shares the cores until the work is done.
func (s *Shared) Do(_ sleeper, size time.Duration) {
	job := &job{finished: make(chan struct{})}
	s.mu.Lock()
	s.advance()
	job.ends = s.done + size.Seconds()
	heap.Push(&s.jobs, job)
	s.schedule()
	s.mu.Unlock()
	<-job.finished
}

// advance counts the work done since the last change. The caller holds mu.
func (s *Shared) advance() {
	now := time.Now()
	if n := len(s.jobs); n > 0 {
		s.done += now.Sub(s.counted).Seconds() * s.speed(float64(n))
	}
	s.counted = now
}

// schedule sets the timer for the next job that ends. The caller holds mu.
func (s *Shared) schedule() {
	if s.timer != nil {
		s.timer.Stop()
	}
	if len(s.jobs) == 0 {
		return
	}
	left := (s.jobs[0].ends - s.done) / s.speed(float64(len(s.jobs)))
	now := clock()
	ends := next(now, time.Duration(max(0, left)*float64(time.Second))+1, jobPlace)
	s.timer = time.AfterFunc(ends-now, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.advance()
		if s.jobs[0].ends <= s.done+1e-12 {
			close(heap.Pop(&s.jobs).(*job).finished) // only one: the next that ends has the next instant
		}
		s.schedule()
	})
}

// Capacity is reached with as many jobs as cores.
func (s *Shared) Capacity(mean time.Duration) float64 { return s.cores / mean.Seconds() }

type job struct {
	ends     float64
	finished chan struct{}
}

// jobs is a heap of jobs, the next that ends first.
type jobs []*job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].ends < j[b].ends }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }
func (j *jobs) Push(x any)        { *j = append(*j, x.(*job)) }
func (j *jobs) Pop() any {
	old := *j
	last := old[len(old)-1]
	*j = old[:len(old)-1]
	return last
}

// Tandem is a row of stations, each with an equal part of the work: a smooth knee.
type Tandem []Station

// Do passes all of them.
func (t Tandem) Do(who sleeper, size time.Duration) {
	for _, s := range t {
		s.Do(who, size/time.Duration(len(t)))
	}
}

// Capacity is that of the slowest.
func (t Tandem) Capacity(mean time.Duration) float64 {
	least := 1e12
	for _, s := range t {
		least = min(least, s.Capacity(mean/time.Duration(len(t))))
	}
	return least
}
