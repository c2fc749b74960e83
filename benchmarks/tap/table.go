package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// row is what was measured with requests of one size: in each round, what a call of each turn cost, in microseconds, by
// role.
type row struct {
	size   int
	rounds []map[string][]float64
}

// of returns what a call cost of a role as a part of a served one, in each round: the median of the turns.
func (r row) of(role string) []float64 {
	var all []float64
	for _, costs := range r.rounds {
		all = append(all, median(ratios(costs[role], costs[served])))
	}
	return all
}

// printTable prints what a call cost as a part of what a served one did: the mean of the rounds, the lowest and the highest.
func printTable(out io.Writer, p plan, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "The server's CPU time for a call as a part of a served call's: mean, lowest and highest of %d rounds,"+
		" each the median of %d turns of %d calls, %d at once.\n\n", p.rounds, p.turns, p.calls, p.callers)
	b.WriteString("| request |")
	for _, role := range roles {
		fmt.Fprintf(&b, " %s |", role)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(roles)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d KiB |", r.size>>10)
		for _, role := range roles {
			all := r.of(role)
			fmt.Fprintf(&b, " %.2f (%.2f to %.2f) |", mean(all), slices.Min(all), slices.Max(all))
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func mean(values []float64) float64 {
	sum := 0.
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

func ratios(costs, to []float64) []float64 {
	all := make([]float64, len(costs))
	for i := range costs {
		all[i] = costs[i] / to[i]
	}
	return all
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
