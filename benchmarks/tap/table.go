package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// row is what was measured with requests of one size: what a call of each turn cost, in microseconds, by role.
type row struct {
	size  int
	costs map[string][]float64
}

// printTable prints the medians of what a call cost, and those of the ratios to a served call of the same turn.
func printTable(out io.Writer, p plan, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "The server's CPU time for a call, in µs, and as a part of a served call's: medians of %d turns of %d calls, %d at once.\n\n",
		p.turns, p.calls, p.callers)
	b.WriteString("| request |")
	for _, role := range roles {
		fmt.Fprintf(&b, " %s |", role)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(roles)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d KiB |", r.size>>10)
		for _, role := range roles {
			fmt.Fprintf(&b, " %.1f (%.2f) |", median(r.costs[role]), median(ratios(r.costs[role], r.costs[served])))
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
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
