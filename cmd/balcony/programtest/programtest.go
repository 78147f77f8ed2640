// Package programtest builds the program for the tests that start it.
package programtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
)

// Main builds the program in a folder of its own, sets binary to its path, and runs the tests. It is what a TestMain does; the status is for os.Exit.
// The program has the race detector if the tests have.
func Main(binary *string, run func() int) (status int) {
	dir, err := os.MkdirTemp("", "balcony")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	*binary = filepath.Join(dir, "balcony")
	args := []string{"build", "-o", *binary}
	if raceEnabled() {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "balcony/cmd/balcony")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return run()
}

// raceEnabled is whether the tests run with the race detector.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
