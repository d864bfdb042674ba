package replay

import (
	"fmt"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// Plot draws the reports of one trace under several policies into dir: locality.svg, load.svg, refused.svg over time
// and latency.svg as a distribution. It answers the paths of the files.
func Plot(dir string, reports []*Report) ([]string, error) {
	series := func(name string, f func(Point) float64) (string, error) {
		var args []any
		for _, r := range reports {
			var xy plotter.XYs
			for _, p := range r.Points {
				xy = append(xy, plotter.XY{X: float64(p.Time) / 1000, Y: f(p)})
			}
			args = append(args, r.Rack.Policy, xy)
		}
		return draw(dir, name, "time in s", name, args)
	}
	var out []string
	for _, d := range []struct {
		name string
		f    func(Point) float64
	}{
		{"whole", func(p Point) float64 { return 100 * p.Whole }},
		{"fullest", func(p Point) float64 { return 100 * p.Widest }},
		{"refused", func(p Point) float64 { return float64(p.Refused) }},
	} {
		path, err := series(d.name, d.f)
		if err != nil {
			return out, err
		}
		out = append(out, path)
	}
	var args []any
	for _, r := range reports {
		var xy plotter.XYs
		for i, ns := range r.Nanos {
			xy = append(xy, plotter.XY{X: float64(ns) / 1000, Y: 100 * float64(i+1) / float64(len(r.Nanos))})
		}
		args = append(args, r.Rack.Policy, xy)
	}
	path, err := draw(dir, "latency", "microseconds a batch", "% of the batches", args)
	return append(out, path), err
}

func draw(dir, name, x, y string, args []any) (string, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = name, x, y
	if err := plotutil.AddLines(p, args...); err != nil {
		return "", fmt.Errorf("plot %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".svg")
	return path, p.Save(16*vg.Centimeter, 9*vg.Centimeter, path)
}
