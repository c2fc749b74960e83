package lab

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

var plotDir = flag.String("plot", "", "directory for pictures of limit, in-flight, line and goodput over time")

// draw writes a picture of a run into the directory of -plot.
func draw(t *testing.T, f Figures) {
	p := plot.New()
	p.Title.Text = f.Case + ", " + f.Contestant
	p.X.Label.Text = "seconds"
	p.Y.Label.Text = "requests; goodput in tens a second"
	var limit, inFlight, line, goodput plotter.XYs
	for _, point := range f.Trace {
		x := point.At.Seconds()
		limit = append(limit, plotter.XY{X: x, Y: float64(point.Limit)})
		inFlight = append(inFlight, plotter.XY{X: x, Y: float64(point.InFlight)})
		line = append(line, plotter.XY{X: x, Y: float64(point.Line)})
		goodput = append(goodput, plotter.XY{X: x, Y: point.Goodput / 10})
	}
	if err := plotutil.AddLines(p, "limit", limit, "in flight", inFlight, "line", line, "goodput / 10", goodput); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(*plotDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.Save(10*vg.Inch, 4*vg.Inch, filepath.Join(*plotDir, f.Case+"-"+f.Contestant+".png")); err != nil {
		t.Fatal(err)
	}
}
