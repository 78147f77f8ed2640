package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony-bench/load"

	"github.com/google/go-cmp/cmp"
)

func sample(server string, rep int, cpu float64) Sample {
	return Sample{Server: server, Scenario: "pairs", Repetition: rep, Metrics: []load.Metric{{Key: "cpu", Title: "server CPU, µs", Value: cpu}}}
}

func example() *Run {
	return &Run{
		Started: time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC), Host: "a machine", Servers: []string{"prosody", "relay", "balcony"},
		Scenarios: []load.Heading{{Name: "pairs", Title: "one-to-one"}},
		Samples: []Sample{
			sample("prosody", 0, 100), sample("relay", 0, 5), sample("balcony", 0, 3),
			sample("prosody", 1, 200), sample("relay", 1, 6), {Server: "balcony", Scenario: "pairs", Repetition: 1, Error: "it broke"},
			sample("prosody", 2, 300), sample("relay", 2, 7), sample("balcony", 2, 12),
		},
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	example().Text(&b)
	// Shares by repetition: 0.03 and 0.04 of Prosody, 0.6 and 12/7 of the relay. 25/670 is 0.037, 38/670 is 0.057; 38/17 is 2.235,
	// 25/17 is 1.471.
	want := `2030-01-02 03:04, a machine

### pairs: one-to-one

|                | prosody       | relay            | balcony           |
| ---            | ---           | ---              | ---               |
| server CPU, µs | 200 (100–300) | 6.00 (5.00–7.00) | 7.50 (3.00–12.0) |

balcony, repetition 2 failed: it broke

### Balcony's cost as a share of the others' (budget: must, aim)

|                          | balcony | / prosody                       | / relay |
| --- | --- | --- | --- |
| message, closed loop, µs | 7.50    | 0.035 (0.057, 0.037: aim met) | 1.157 (2.235, 1.471: aim met) |

`
	// Column widths are tabwriter's.
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if diff := cmp.Diff(squeeze(want), squeeze(b.String())); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	run := example()
	if err := run.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Run
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*run, back); diff != "" {
		t.Error(diff)
	}
}

func TestShare(t *testing.T) {
	b := budget{Must: 40, Aim: 20, Theirs: map[string]float64{"prosody": 100}}
	for ratio, want := range map[float64]string{0.2: "aim met", 0.3: "must met", 0.5: "OVER"} {
		if got := b.share("prosody", ratio); !strings.Contains(got, want) {
			t.Errorf("share %v: %q, want %q", ratio, got, want)
		}
	}
	if got := b.share("relay", 0.5); got != "0.500" {
		t.Errorf("without a budget: %q", got)
	}
}
