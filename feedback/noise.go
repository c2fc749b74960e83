package feedback

import "math"

// noise learns how variable the work is: the squared coefficient of variation (SCV) of its times, as it shows in
// the goodput. Neighbouring windows under the same limit should show the same goodput but for chance, and
// var(ln X1 - ln X2) = SCV (1/n1 + 1/n2) for n1 and n2 completions. What fails at random adds to it. The times that requests stay would not do: in
// front of a queue they vary less the longer the queue is.
type noise struct {
	estimate float64 // 0: nothing is known
	last     Sample
}

// The memory of the estimate in windows, and the least that it may say: even clockwork has some noise.
const (
	noiseMemory = 32
	leastNoise  = 0.02
)

// scv returns the estimate: 1, that of exponential times, before anything is known.
func (n *noise) scv() float64 {
	if n.estimate == 0 {
		return 1
	}
	return n.estimate
}

func (n *noise) learn(s Sample) {
	p := n.last
	n.last = s
	if p.Limit != s.Limit || !p.Bound() || !s.Bound() || p.Good < 2 || s.Good < 2 || p.Length() == 0 || s.Length() == 0 {
		return
	}
	d := math.Log(p.per(p.Useful) / s.per(s.Useful))
	if math.IsNaN(d) || math.IsInf(d, 0) {
		return
	}
	a, b := float64(p.Completions), float64(s.Completions)
	n.estimate = max(leastNoise, n.scv()+(d*d*a*b/(a+b)-n.scv())/noiseMemory)
}
