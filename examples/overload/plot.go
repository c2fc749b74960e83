package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// plotGoodput draws goodput against load, both as multiples of the capacity, and returns the picture's path.
func plotGoodput(dir string, capacity float64, results []result) (string, error) {
	p := plot.New()
	p.Title.Text = "Goodput against load"
	p.X.Label.Text = "offered load / capacity"
	p.Y.Label.Text = "goodput / capacity"
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 10.5, 0, 1.1
	p.Legend.Top = true
	p.Legend.YOffs, p.Legend.XOffs = -vg.Points(60), -vg.Points(20)
	p.Legend.Padding = vg.Points(4)
	p.Add(plotter.NewGrid())
	styles := map[string]color.Color{bare: color.RGBA{R: 200, A: 255}, protected: color.RGBA{G: 110, B: 190, A: 255}}
	for _, role := range roles {
		points := plotter.XYs{{X: 0, Y: 0}}
		for _, r := range results {
			if r.Server == role && r.Phase != phases[len(phases)-1].name {
				points = append(points, plotter.XY{X: r.OfferedPerS / capacity, Y: r.GoodputOfCapacity})
			}
		}
		slices.SortFunc(points, func(a, b plotter.XY) int {
			if a.X < b.X {
				return -1
			}
			return 1
		})
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return "", fmt.Errorf("the picture cannot be drawn: %w", err)
		}
		line.Color, dots.Color = styles[role], styles[role]
		line.Width = vg.Points(2)
		dots.Shape = draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(role, line, dots)
	}
	path := filepath.Join(dir, "goodput.svg")
	if err := p.Save(7*vg.Inch, 4*vg.Inch, path); err != nil {
		return "", fmt.Errorf("the picture cannot be written: %w", err)
	}
	return path, nil
}
