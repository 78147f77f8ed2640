// Package report prints what a run of the benchmark measured.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"balcony/cmd/balcony-bench/load"
	"balcony/cmd/balcony-bench/stats"
)

// Run is everything that one run measured, in the form in which it is written as JSON.
type Run struct {
	Started   time.Time      `json:"started"`
	Host      string         `json:"host"` // processor, number of CPUs, kernel
	Command   []string       `json:"command"`
	Servers   []string       `json:"servers"`
	Scenarios []load.Heading `json:"scenarios"`
	Samples   []Sample       `json:"samples"`
}

// Sample is one repetition of one scenario on one server.
type Sample struct {
	Server     string        `json:"server"`
	Scenario   string        `json:"scenario"`
	Repetition int           `json:"repetition"` // from 0
	Error      string        `json:"error,omitempty"`
	Metrics    []load.Metric `json:"metrics,omitempty"`
}

// JSON writes the run with all its samples.
func (r *Run) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

// values are a metric's values by repetition; a repetition that failed is NaN.
func (r *Run) values(scenario, key, server string) []float64 {
	var v []float64
	for _, s := range r.Samples {
		if s.Scenario != scenario || s.Server != server {
			continue
		}
		for len(v) <= s.Repetition {
			v = append(v, math.NaN())
		}
		for _, m := range s.Metrics {
			if m.Key == key {
				v[s.Repetition] = m.Value
			}
		}
	}
	return v
}

func median(v []float64) float64 {
	return stats.Median(slices.DeleteFunc(slices.Clone(v), math.IsNaN))
}

// metrics are the keys and titles that any sample of a scenario has, in order.
func (r *Run) metrics(scenario string) (all []load.Metric) {
	for _, s := range r.Samples {
		if s.Scenario != scenario {
			continue
		}
		for _, m := range s.Metrics {
			if !slices.ContainsFunc(all, func(o load.Metric) bool { return o.Key == m.Key }) {
				all = append(all, m)
			}
		}
	}
	return all
}

// Text writes a Markdown table for each scenario: the medians, with the range over the repetitions for the metrics that have a budget, and
// then how Balcony compares, as ratios.
func (r *Run) Text(w io.Writer) {
	fmt.Fprintf(w, "%s, %s\n\n", r.Started.Format("2006-01-02 15:04"), r.Host)
	for _, sc := range r.Scenarios {
		fmt.Fprintf(w, "### %s: %s\n\n", sc.Name, sc.Title)
		table(w, append([]string{""}, r.Servers...), func(row func(...string)) {
			for _, m := range r.metrics(sc.Name) {
				cells := []string{m.Title}
				for _, server := range r.Servers {
					cells = append(cells, cell(r.values(sc.Name, m.Key, server), isBudget(sc.Name, m.Key)))
				}
				row(cells...)
			}
		})
		for _, s := range r.Samples {
			if s.Scenario == sc.Name && s.Error != "" {
				fmt.Fprintf(w, "%s, repetition %d failed: %s\n\n", s.Server, s.Repetition+1, s.Error)
			}
		}
	}
	r.ratios(w)
}

// ratios writes what share of each other server's cost Balcony has, beside the share that the budget allows.
func (r *Run) ratios(w io.Writer) {
	if len(r.Servers) == 1 {
		return
	}
	for _, ours := range []string{"balcony", "balcony-postgres"} {
		if slices.Contains(r.Servers, ours) {
			r.shares(w, ours)
		}
	}
}

// shares are the ratios of one of ours to those of the others.
func (r *Run) shares(w io.Writer, ours string) {
	title := "Balcony's cost"
	if ours != "balcony" {
		title = "The cost of " + ours
	}
	fmt.Fprintf(w, "### %s as a share of the others' (budget: must, aim)\n\n", title)
	head := []string{"", ours}
	for _, s := range r.Servers {
		if s != ours {
			head = append(head, "/ "+s)
		}
	}
	table(w, head, func(row func(...string)) {
		for _, b := range budgets {
			mine := r.values(b.Scenario, b.Key, ours)
			if math.IsNaN(median(mine)) {
				continue
			}
			cells := []string{b.Title, cell(mine, false)}
			for _, s := range r.Servers {
				if s == ours {
					continue
				}
				cells = append(cells, b.share(s, stats.MedianRatio(mine, r.values(b.Scenario, b.Key, s))))
			}
			row(cells...)
		}
	})
}

// share prints a ratio and what the budget says of it.
func (b budget) share(server string, ratio float64) string {
	if math.IsNaN(ratio) {
		return "–"
	}
	text := fmt.Sprintf("%.3f", ratio)
	theirs, ok := b.Theirs[server]
	if !ok || b.Must == 0 {
		return text
	}
	must, aim := b.Must/theirs, b.Aim/theirs
	verdict := "OVER"
	switch {
	case ratio <= aim:
		verdict = "aim met"
	case ratio <= must:
		verdict = "must met"
	}
	return fmt.Sprintf("%s (%.3f, %.3f: %s)", text, must, aim, verdict)
}

// cell prints a median, and the range if there is more than one value and it is asked for.
func cell(v []float64, spread bool) string {
	v = slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	if len(v) == 0 {
		return "–"
	}
	if !spread || len(v) == 1 {
		return number(stats.Median(v))
	}
	return fmt.Sprintf("%s (%s–%s)", number(stats.Median(v)), number(slices.Min(v)), number(slices.Max(v)))
}

// number prints three significant digits or so.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

// table writes a Markdown table with aligned columns and an empty line behind it.
func table(w io.Writer, head []string, rows func(row func(...string))) {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(cells ...string) { fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	row(head...)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---"
	}
	row(rule...)
	rows(row)
	t.Flush()
	fmt.Fprintln(w)
}
