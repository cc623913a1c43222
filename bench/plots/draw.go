package main

import (
	"errors"
	"image/color"
	"maps"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width, height = 24 * vg.Centimeter, 9 * vg.Centimeter
	barWidth      = 9 // points

	fewest, most = .8, 80 // streams on the axis
)

var directions = []struct{ name, title string }{{"down", "download"}, {"up", "upload"}}

// drawThroughput draws a panel for each direction: Gbit/s over streams, a line for each curve.
func drawThroughput(all runs, file string) error {
	var panels []*plot.Plot
	legend := plot.New()
	legend.HideAxes()
	legend.Legend.Top, legend.Legend.Left = true, true
	for i, direction := range directions {
		p := newPlot(direction.title, "streams", "Gbit/s")
		p.X.Scale, p.X.Min, p.X.Max = plot.LogScale{}, fewest, most
		var ticks plot.ConstantTicks
		for n, c := range all.curves() {
			if c.side == "limit" {
				continue // off this scale, and of one stream only
			}
			spreads := all.of(c, direction.name, func(m measured) float64 { return m.Gbit })
			if len(spreads) == 0 {
				continue
			}
			line, points, bars, err := curveOf(spreads)
			if err != nil {
				return err
			}
			line.Color, points.Color, bars.Color = colorOf(c, n), colorOf(c, n), colorOf(c, n)
			points.Shape = plotutil.Shape(n)
			p.Add(line, points, bars)
			if i == 0 {
				legend.Legend.Add(c.String(), line, points)
			}
			for streams := range spreads {
				if label := strconv.Itoa(streams); !slices.ContainsFunc(ticks, func(t plot.Tick) bool { return t.Label == label }) {
					ticks = append(ticks, plot.Tick{Value: float64(streams), Label: label})
				}
			}
		}
		if len(ticks) == 0 {
			return errors.New("there is no transfer among the figures")
		}
		p.X.Tick.Marker = ticks
		panels = append(panels, p)
	}
	return save(append(panels, legend), file)
}

// curveOf makes a line with its points and spreads.
func curveOf(spreads map[int]spread) (*plotter.Line, *plotter.Scatter, *plotter.YErrorBars, error) {
	var points struct {
		plotter.XYs
		plotter.YErrors
	}
	for _, streams := range slices.Sorted(maps.Keys(spreads)) {
		s := spreads[streams]
		points.XYs = append(points.XYs, plotter.XY{X: float64(streams), Y: s.median})
		points.YErrors = append(points.YErrors, struct{ Low, High float64 }{s.median - s.low, s.high - s.median})
	}
	line, scatter, err := plotter.NewLinePoints(points.XYs)
	if err != nil {
		return nil, nil, nil, err
	}
	bars, err := plotter.NewYErrorBars(points)
	return line, scatter, bars, err
}

// drawCPU draws a panel for each direction: CPU per GB of one stream, a bar for each curve.
func drawCPU(all runs, file string) error {
	var panels []*plot.Plot
	for _, direction := range directions {
		p := newPlot(direction.title+", one stream", "", "CPU s/GB")
		var names []string
		for n, c := range all.curves() {
			s, ok := all.of(c, direction.name, func(m measured) float64 { return m.CPU })[1]
			if !ok {
				continue
			}
			bar, err := plotter.NewBarChart(plotter.Values{s.median}, vg.Points(barWidth))
			if err != nil {
				return err
			}
			bar.XMin, bar.Color, bar.LineStyle.Width = float64(len(names)), colorOf(c, n), 0
			bar.Horizontal = true
			p.Add(bar)
			names = append(names, c.String())
		}
		if len(names) == 0 {
			return errors.New("there is no transfer of one stream among the figures")
		}
		p.X.Min = 0
		p.X.Label.Text, p.Y.Label.Text = p.Y.Label.Text, ""
		p.NominalY(names...)
		panels = append(panels, p)
	}
	return save(panels, file)
}

// colorOf is a curve's color: the peer's is grey.
func colorOf(c curve, n int) color.Color {
	if c.carrier == "" {
		return color.Gray{0x77}
	}
	return plotutil.DarkColors[n%len(plotutil.DarkColors)]
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Y.Min = 0
	p.BackgroundColor = color.White
	p.Add(plotter.NewGrid())
	return p
}

// save draws the panels side by side.
func save(panels []*plot.Plot, file string) error {
	canvas := vgsvg.New(width, height)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Centimeter, PadLeft: vg.Millimeter * 4, PadRight: vg.Millimeter * 3, PadTop: vg.Millimeter}
	row := plot.Align([][]*plot.Plot{panels}, tiles, draw.New(canvas))[0]
	for i, p := range panels {
		p.Draw(row[i])
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = canvas.WriteTo(out)
	return errors.Join(err, out.Close())
}
