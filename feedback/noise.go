package feedback

import "math"

// noise learns how variable the work is: the squared coefficient of variation (SCV) of its times, as it shows in
// the goodput. Neighbouring windows under the same limit should show the same goodput but for chance, and
// var(ln X1 - ln X2) = SCV (1/n1 + 1/n2) for n1 and n2 completions. What fails at random adds to it. The times that
// requests stay would not do: in front of a queue they vary less the longer the queue is. But that tells how long the
// queue is; see waiting.
type noise struct {
	estimate float64 // 0: nothing is known
	stays    float64 // the SCV of the stays in a window, learned with the estimate
	last     Sample
}

// The memory of the estimates in windows, and the least that the first may say: even clockwork has some noise. What chance
// makes of their ratio, in logs, is twice byChance.
const (
	noiseMemory = 32
	leastNoise  = 0.02
	byChance    = 0.15
)

// scv returns the estimate: 1, that of exponential times, before anything is known.
func (n *noise) scv() float64 {
	if n.estimate == 0 {
		return 1
	}
	return n.estimate
}

// waiting returns ln of how many times as long as their work takes requests stay, 0 at least, as it shows in how little
// their stays differ. In front of a queue all of them wait, and about as long as their neighbours: that adds to the mean of
// stays, and hardly to the differences between them. If W0 is what the work takes and W how long requests stay, the SCV of
// the one is (W / W0)² that of the other. Where work hardly differs, all kinds of chance do more than it: what is missing
// there to the noise of exponential times counts as noise of both.
func (n *noise) waiting() float64 {
	if n.estimate == 0 {
		return 0
	}
	other := max(0, 1-n.estimate)
	return max(0, math.Log((n.estimate+other)/(n.stays+other))/2-byChance)
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
	if n.estimate == 0 {
		n.estimate, n.stays = 1, 1
	}
	a, b := float64(p.Completions), float64(s.Completions)
	n.estimate = max(leastNoise, n.estimate+(d*d*a*b/(a+b)-n.estimate)/noiseMemory)
	n.stays = max(leastNoise, n.stays+(variation(s)-n.stays)/noiseMemory)
}

// variation returns the SCV of the stays of a window, 0 for one of fewer than two.
func variation(s Sample) float64 {
	if !(s.Sum > 0) || s.Completions < 2 {
		return 0
	}
	count := float64(s.Completions)
	mean := s.Sum / count
	scv := (s.Squares/count/(mean*mean) - 1) * count / (count - 1)
	if !(scv > 0 && scv <= math.MaxFloat64) { // nor NaN
		return 0
	}
	return scv
}
