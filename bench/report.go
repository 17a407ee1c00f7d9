package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
)

// better says which of two values of a metric is.
type better int

const (
	lower better = iota
	higher
	neutral // neither: it is shown without a ratio
)

// metric is a column of a table.
type metric struct {
	name   string
	better better
}

// report collects what was measured.
type report struct {
	tables []*table
	notes  []note
}

// note is about a relay that could not be measured.
type note struct {
	Work  string `json:"work,omitempty"`
	Relay string `json:"relay"`
	Text  string `json:"text"`
}

// table is what was measured of one work.
type table struct {
	work  work
	cases []*group
}

// group is the rows of a table that compare.
type group struct {
	name    string
	metrics []metric
	relays  []*relay
	samples map[sampled][]float64
}

// sampled is a cell of a group.
type sampled struct {
	relay  string
	metric metric
}

func newReport() *report { return new(report) }

// begin makes w what add and note are about.
func (r *report) begin(w work) { r.tables = append(r.tables, &table{work: w}) }

// add adds a round's value.
func (r *report) add(name string, of *relay, m metric, value float64) {
	t := r.tables[len(r.tables)-1]
	i := slices.IndexFunc(t.cases, func(g *group) bool { return g.name == name })
	if i < 0 {
		i = len(t.cases)
		t.cases = append(t.cases, &group{name: name, samples: make(map[sampled][]float64)})
	}
	g := t.cases[i]
	if !slices.Contains(g.metrics, m) {
		g.metrics = append(g.metrics, m)
	}
	if !slices.ContainsFunc(g.relays, func(x *relay) bool { return x.name == of.name }) {
		g.relays = append(g.relays, of)
	}
	key := sampled{of.name, m}
	g.samples[key] = append(g.samples[key], value)
}

// note says why a relay is missing.
func (r *report) note(relay string, err error) {
	n := note{Relay: relay, Text: err.Error()}
	if len(r.tables) > 0 {
		n.Work = r.tables[len(r.tables)-1].work.name
	}
	if !slices.Contains(r.notes, n) {
		r.notes = append(r.notes, n)
		fmt.Fprintf(os.Stderr, "bench: %s: %s\n", n.Relay, n.Text)
	}
}

// summary is what a table says of several rounds.
type summary struct {
	Median, Min, Max float64
}

func summarize(samples []float64) summary {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	return summary{(s[(n-1)/2] + s[n/2]) / 2, s[0], s[n-1]}
}

// spread is half the distance between the lowest and the highest, by the median.
func (s summary) spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / 2 / math.Abs(s.Median)
}

// best returns the best median among the peers, or of the baseline if there are
// none.
func (g *group) best(m metric) (best float64, ok bool) {
	for _, k := range []kind{peer, baseline} {
		for _, r := range g.relays {
			samples := g.samples[sampled{r.name, m}]
			if r.kind != k || len(samples) == 0 {
				continue
			}
			v := summarize(samples).Median
			if !ok || m.better == lower && v < best || m.better == higher && v > best {
				best, ok = v, true
			}
		}
		if ok {
			break
		}
	}
	return best, ok && m.better != neutral && best > 0
}

// machine describes where this was measured, without naming it.
func machine() string {
	cpu := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
			cpu = strings.TrimSpace(v)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, load average %.4s", cpu, runtime.NumCPU(),
		strings.TrimSpace(string(kernel)), runtime.Version(), load)
}

// sample is a cell as JSON.
type sample struct {
	Work    string    `json:"work"`
	Case    string    `json:"case"`
	Relay   string    `json:"relay"`
	Metric  string    `json:"metric"`
	Samples []float64 `json:"samples"`
	Median  float64   `json:"median"`
	Ratio   float64   `json:"ratio_to_best_peer,omitempty"`
}

// writeJSON writes every sample.
func (r *report) writeJSON(w io.Writer) error {
	out := struct {
		Machine string   `json:"machine"`
		Samples []sample `json:"samples"`
		Notes   []note   `json:"notes"`
	}{Machine: machine(), Notes: r.notes}
	for _, t := range r.tables {
		for _, g := range t.cases {
			out.Samples = append(out.Samples, g.list(t.work.name)...)
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(out)
}

func (g *group) list(work string) (list []sample) {
	for _, rel := range g.relays {
		for _, m := range g.metrics {
			samples := g.samples[sampled{rel.name, m}]
			if len(samples) == 0 {
				continue
			}
			s := sample{Work: work, Case: g.name, Relay: rel.name, Metric: m.name, Samples: samples, Median: summarize(samples).Median}
			if best, ok := g.best(m); ok {
				s.Ratio = s.Median / best
			}
			list = append(list, s)
		}
	}
	return list
}
