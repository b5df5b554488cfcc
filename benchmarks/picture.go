package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// All colors are visible on white and on black.
var (
	ink     = color.NRGBA{0x80, 0x88, 0x94, 0xff}
	faint   = color.NRGBA{0x80, 0x88, 0x94, 0x48}
	good    = color.NRGBA{0x2f, 0x81, 0xf7, 0xff}
	other   = color.NRGBA{0xc0, 0x7a, 0x1e, 0xff}
	trouble = color.NRGBA{0xe5, 0x48, 0x4d, 0xff}
	shade   = color.NRGBA{0xe5, 0x48, 0x4d, 0x30}
)

const (
	lowest, highest = 1.0, 10_000.0 // milliseconds
	failures        = 6000.0        // failed connects are marked here
)

// In points.
const width, strip, above, below = 860, 112, 50, 36

// A picture shows the timeline of results.
type picture struct{ *Results }

// svg draws the picture.
func (p picture) svg() ([]byte, error) {
	canvas := vgsvg.New(width, vg.Length(above+strip*len(ways)+below))
	if err := p.paint(canvas); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	// Few systems have gonum's fonts. Arial's letters have the same width.
	const sans, alternatives = "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;"
	return bytes.ReplaceAll(out.Bytes(), []byte(sans), []byte(alternatives)), err
}

// paint draws a strip for each way, time from left to right.
func (p picture) paint(canvas vg.CanvasSizer) error {
	whole := draw.New(canvas)
	height := whole.Max.Y

	write := func(x, y, size vg.Length, c color.Color, line string) {
		whole.FillText(style(size, c), vg.Point{X: x, Y: y}, line)
	}
	write(14, height-20, 14, ink, "Time to connect, through three token lifetimes and an outage of Entra")
	write(14, height-36, 10, ink, "milliseconds, logarithmic; a mark at the top of a strip is a connect that failed")
	t := p.Timeline
	write(14, 24, 9, ink,
		fmt.Sprintf("A connect every %.0f ms for each way. Tokens are valid for %.0f s, a request for one "+
			"takes %.0f ms, and for %.1f s (shaded) Entra is down.",
			1000*t.Every, t.Life, 1000*t.Latency, t.Down[1]-t.Down[0]))
	write(14, 11, 9, ink, p.String())

	for i, w := range ways {
		drawn, err := panel{t, w.name}.plot()
		if err != nil {
			return err
		}
		top := height - above - vg.Length(i*strip)
		write(14, top-8, 10, ink, w.name+": "+w.what)
		drawn.Draw(draw.Canvas{Canvas: whole, Rectangle: vg.Rectangle{
			Min: vg.Point{X: 14, Y: top - strip + 6}, Max: vg.Point{X: width - 14, Y: top - 17},
		}})
	}
	return nil
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

func style(size vg.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: font.From(sans, size), Handler: plot.DefaultTextHandler, YAlign: draw.YCenter}
}

// A panel is the strip of the picture for one way.
type panel struct {
	*Timeline
	way string
}

func (n panel) plot() (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = nil // transparent
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, n.Until, lowest, highest
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.ConstantTicks{
		{Value: 1, Label: "1"},
		{Value: 10, Label: "10"},
		{Value: 100, Label: "100"},
		{Value: 1000, Label: "1000"},
		{Value: 10_000, Label: "10000"},
	}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Tick.Color, axis.Tick.Label.Color = ink, ink, ink
		axis.Tick.Label.Font, axis.Padding = font.From(sans, 9), 0
	}
	p.X.Tick.Marker = n.seconds()

	down, err := plotter.NewPolygon(plotter.XYs{
		{X: n.Down[0], Y: lowest}, {X: n.Down[1], Y: lowest}, {X: n.Down[1], Y: highest}, {X: n.Down[0], Y: highest},
	})
	if err != nil {
		return nil, err
	}
	down.Color, down.Width = shade, 0
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = faint, faint
	p.Add(down, grid)

	served, errored := n.points()
	for _, line := range served {
		l, err := plotter.NewLine(line)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width = other, 1.2
		if n.way == ours {
			l.Color = good
		}
		p.Add(l)
	}
	if len(errored) > 0 {
		marks, err := plotter.NewScatter(errored)
		if err != nil {
			return nil, err
		}
		marks.GlyphStyle = draw.GlyphStyle{Color: trouble, Radius: 1.6, Shape: draw.BoxGlyph{}}
		p.Add(marks)
	}
	return p, nil
}

// points returns the successful connects, in runs that a failure ends, and the
// failed ones.
func (n panel) points() (served []plotter.XYs, errored plotter.XYs) {
	var stretch plotter.XYs
	end := func() {
		if len(stretch) > 0 {
			served = append(served, stretch)
		}
		stretch = nil
	}
	for _, s := range n.Ways[n.way] {
		if s[2] != 0 {
			end()
			errored = append(errored, plotter.XY{X: s[0], Y: failures})
			continue
		}
		stretch = append(stretch, plotter.XY{X: s[0], Y: math.Max(lowest, math.Min(highest, s[1]))})
	}
	end()
	return served, errored
}

// seconds returns the ticks of the time axis.
func (n panel) seconds() plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i := range 7 {
		at := n.Until * float64(i) / 6
		ticks = append(ticks, plot.Tick{Value: at, Label: fmt.Sprintf("%.4g s", at)})
	}
	return ticks
}
