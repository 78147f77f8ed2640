package proc

import (
	"os"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	cpu, err := parseStat([]byte("7 (a ) b) S 1 7 7 0 -1 4194304 10 0 0 0 150 25 9 9 20 0 1 0 5 1 1"))
	if err != nil || cpu != 1930*time.Millisecond {
		t.Errorf("stat: %v, %v", cpu, err)
	}
	rss, err := parseRSS([]byte("5-7 ---p 0 00:00 0   [rollup]\nRss:                1736 kB\nPss:  303 kB\n"))
	if err != nil || rss != 1736 {
		t.Errorf("smaps_rollup: %v, %v", rss, err)
	}
	busy, err := parseBusy([]byte("cpu  1 2 3 1000 1000 4 5 6 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"))
	if err != nil || busy != 210*time.Millisecond {
		t.Errorf("/proc/stat: %v, %v", busy, err)
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("stat %q passed", bad)
		}
	}
}

// TestSelf burns CPU in this process until the reading shows it.
func TestSelf(t *testing.T) {
	before, err := ReadCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var used time.Duration
	for used < 50*time.Millisecond {
		now, err := ReadCPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		used = now.Since(before)
	}
	if rss, err := RSS(os.Getpid()); err != nil || rss < 1000 {
		t.Errorf("RSS %d KiB, %v", rss, err)
	}
	if _, err := ReadCPU(-1); err == nil {
		t.Error("a process that does not exist has a reading")
	}
}

func TestSinceThreadsEnded(t *testing.T) {
	before := CPU{threads: time.Second, total: time.Second}
	if d := (CPU{threads: 900 * time.Millisecond, total: 1200 * time.Millisecond}).Since(before); d != 200*time.Millisecond {
		t.Errorf("threads ended: %v", d)
	}
	if d := (CPU{threads: 1195 * time.Millisecond, total: 1200 * time.Millisecond}).Since(before); d != 195*time.Millisecond {
		t.Errorf("no thread ended: %v", d)
	}
}
