package config

import (
	"math"
	"testing"
	"time"
)

func TestUnitsReadAndPrint(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Bytes
		out  string
	}{
		{"0", 0, "0B"}, {"10KB", 10000, "10KB"}, {"256KiB", 262144, "256KiB"}, {"2MiB", 2 << 20, "2MiB"}, {"1 MB", 1e6, "1MB"},
		{"1024", 1024, "1KiB"}, {"1025B", 1025, "1025B"}, {"3GiB", 3 << 30, "3GiB"}, {"off", Off, "off"},
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(tt.in)); err != nil || b != tt.want {
			t.Errorf("Bytes %q = %d, %v; want %d", tt.in, b, err, tt.want)
		}
		if out, _ := b.MarshalText(); string(out) != tt.out {
			t.Errorf("Bytes %d prints as %s, want %s", b, out, tt.out)
		}
	}
	for _, bad := range []string{"", "KiB", "-1", "1.5MiB", "256kib", "9223372036854775807KiB", "OFF"} {
		if err := new(Bytes).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("Bytes %q was accepted", bad)
		}
	}
	for _, tt := range []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"0", 0, "0"}, {"365d", 365 * 24 * time.Hour, "365d"}, {"36h", 36 * time.Hour, "36h"}, {"90s", 90 * time.Second, "90s"},
		{"1h30m", 90 * time.Minute, "90m"}, {"1500ms", 1500 * time.Millisecond, "1.5s"}, {"off", Off, "off"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(tt.in)); err != nil || time.Duration(d) != tt.want {
			t.Errorf("Duration %q = %v, %v; want %v", tt.in, d, err, tt.want)
		}
		if out, _ := d.MarshalText(); string(out) != tt.out {
			t.Errorf("Duration %d prints as %s, want %s", d, out, tt.out)
		}
	}
	for _, bad := range []string{"", "d", "-1s", "-1d", "5", "1.5d", "999999999999d"} {
		if err := new(Duration).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("Duration %q was accepted", bad)
		}
	}
	for _, tt := range []struct {
		in   string
		want Count
	}{{"0", 0}, {"64", 64}, {"off", Off}} {
		var c Count
		if err := c.UnmarshalText([]byte(tt.in)); err != nil || c != tt.want {
			t.Errorf("Count %q = %d, %v; want %d", tt.in, c, err, tt.want)
		}
		if out, _ := c.MarshalText(); string(out) != tt.in {
			t.Errorf("Count %d prints as %s, want %s", c, out, tt.in)
		}
	}
	for _, bad := range []string{"", "-1", "many", "1.0"} {
		if err := new(Count).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("Count %q was accepted", bad)
		}
	}
	if Bytes(Off).Int() != math.MaxInt || Count(Off).Int() != math.MaxInt || Duration(Off).Std() != math.MaxInt64 {
		t.Error("a limit that is off does not compare as the largest value")
	}
	if Bytes(5).Int() != 5 || Count(5).Int() != 5 || Duration(5).Std() != 5 {
		t.Error("a limit that is set does not compare as itself")
	}
}
