package stats

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("median of nothing is a number")
	}
	in := []float64{2, 1}
	if Median(in); in[0] != 2 {
		t.Error("Median reordered its argument")
	}
}

func TestQuantile(t *testing.T) {
	v := make([]int64, 100)
	for i := range v {
		v[i] = int64(i + 1)
	}
	for q, want := range map[float64]int64{0: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := Quantile(v, q); got != want {
			t.Errorf("Quantile(%v) = %d, want %d", q, got, want)
		}
	}
	if Quantile([]int64(nil), 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}

func TestMedianRatio(t *testing.T) {
	// The second repetition ran on a machine twice as slow; a missing or empty one does not count.
	got := MedianRatio([]float64{1, 2, 1.1, math.NaN(), 7}, []float64{10, 20, 10, 10, 0})
	if got != 0.1 {
		t.Errorf("got %v, want 0.1", got)
	}
}
