package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// write writes a table per work, and the notes.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s\n", machine())
	for _, t := range r.tables {
		if err := t.write(w); err != nil {
			return err
		}
	}
	if len(r.notes) > 0 {
		fmt.Fprintln(w, "\nnot measured")
	}
	for _, n := range r.notes {
		fmt.Fprintf(w, "  %s\n", strings.TrimPrefix(n.Work+": "+n.Relay+": "+n.Text, ": "))
	}
	return nil
}

// write writes the groups of t below each other. A column is three: the median, the
// spread, and the ratio to the best peer.
func (t *table) write(w io.Writer) error {
	fmt.Fprintf(w, "\n%s: %s\n", t.work.name, t.work.about)
	for _, g := range t.cases {
		tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight)
		fmt.Fprintf(tw, "  %-15s\t", "")
		for _, m := range g.metrics {
			fmt.Fprintf(tw, "%s\t\t", m.name)
			if m.better != neutral {
				fmt.Fprint(tw, "×best\t")
			}
		}
		fmt.Fprintln(tw)
		for _, r := range g.relays {
			fmt.Fprintf(tw, "  %-15s\t", r.name)
			for _, m := range g.metrics {
				g.writeCell(tw, r, m)
			}
			fmt.Fprintln(tw)
		}
		fmt.Fprintf(w, " %s\n", g.name)
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) writeCell(w io.Writer, r *relay, m metric) {
	samples := g.samples[sampled{r.name, m}]
	columns := 3
	if m.better == neutral {
		columns = 2
	}
	if len(samples) == 0 {
		fmt.Fprint(w, strings.Repeat("-\t", columns))
		return
	}
	s := summarize(samples)
	spread := ""
	if len(samples) > 1 {
		spread = fmt.Sprintf("±%.0f%%", 100*s.spread())
	}
	fmt.Fprintf(w, "%s\t%s\t", short(s.Median), spread)
	if columns < 3 {
		return
	}
	ratio := ""
	if best, ok := g.best(m); ok {
		ratio = fmt.Sprintf("%.2f", s.Median/best)
	}
	fmt.Fprintf(w, "%s\t", ratio)
}

// short writes three digits that count, or more before the point.
func short(v float64) string {
	digits := 2
	if v != 0 {
		digits = max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	}
	return strconv.FormatFloat(v, 'f', min(digits, 3), 64)
}
