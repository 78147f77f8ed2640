// Package proc reads what Linux accounts to a process and its descendants: CPU time and resident memory.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every Linux port that Go has.
const tick = 10 * time.Millisecond

// Tree returns pids and all their living descendants.
func Tree(pids ...int) []int {
	all := slices.Clone(pids)
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(b)) {
				if child, err := strconv.Atoi(w); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// CPU is a reading of the CPU time that processes and their descendants have used.
type CPU struct {
	threads time.Duration // sum over the living threads, in nanoseconds
	total   time.Duration // user and system time, threads and descendants that ended included, in ticks
}

// ReadCPU takes a reading.
func ReadCPU(pids ...int) (CPU, error) {
	var c CPU
	for _, p := range Tree(pids...) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			if slices.Contains(pids, p) {
				return c, err
			}
			continue // a descendant that has just ended
		}
		t, err := parseStat(b)
		if err != nil {
			return c, err
		}
		c.total += t
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				ns, _, _ := bytes.Cut(b, []byte(" "))
				n, _ := strconv.ParseInt(string(ns), 10, 64)
				c.threads += time.Duration(n)
			}
		}
	}
	return c, nil
}

// Since is the CPU time used between the readings before and c. The exact sum over the threads counts, unless threads or descendants ended in
// between and took their time along; then the coarse total does.
func (c CPU) Since(before CPU) time.Duration {
	exact, coarse := c.threads-before.threads, c.total-before.total
	if exact < coarse-2*tick {
		return coarse
	}
	return exact
}

// parseStat returns utime + stime + cutime + cstime (fields 14 to 17) of /proc/PID/stat.
func parseStat(b []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(b, ')') // the command name may hold anything
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 15 {
		return 0, fmt.Errorf("unexpected stat line %q", b)
	}
	var sum int64
	for _, field := range f[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("unexpected stat line %q", b)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// RSS is the resident memory of a process and its living descendants, in KiB.
func RSS(pid int) (int64, error) {
	var sum int64
	for _, p := range Tree(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue
		}
		n, err := parseRSS(b)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func parseRSS(b []byte) (int64, error) {
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no Rss line in smaps_rollup")
}

// Busy is the time that all CPUs of the machine together have spent on work, steal included.
func Busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(b)
}

func parseBusy(b []byte) (time.Duration, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("unexpected first line of /proc/stat %q", line)
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}
