package pubsub_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	aXEP      = regexp.MustCompile(`XEP-(\d{4})`)
	someOfXEP = regexp.MustCompile(`[Ee]xamples? ((?:\d+(?: to \d+)?(?:, and |, | and )?)+)`)
	numbers   = regexp.MustCompile(`(\d+)(?: to (\d+))?`)
)

func each(list string, f func(int)) {
	for _, m := range numbers.FindAllStringSubmatch(list, -1) {
		from, _ := strconv.Atoi(m[1])
		to := from
		if m[2] != "" {
			to, _ = strconv.Atoi(m[2])
		}
		for n := from; n <= to; n++ {
			f(n)
		}
	}
}

// Every example of these documents is in a transcript or a test, whose comments have its number, or in testdata/examples.list with the reason why not. A
// number belongs to the document that is named before it on the line, or behind it, or first of all in a transcript.
func TestExamples(t *testing.T) {
	documents := map[string]int{"0060": 236, "0163": 11, "0223": 6, "0398": 6, "0402": 14} // how many examples each has, without those in XML comments
	played := make(map[string]map[int]string)
	for x := range documents {
		played[x] = make(map[int]string)
	}
	var files []string
	for _, dir := range []string{".", "../avatar", "../bookmarks"} {
		for _, pattern := range []string{"testdata/*.txt", "*_test.go"} {
			list, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, list...)
		}
	}
	for _, f := range files {
		if f == "examples_test.go" {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		comment, whole := "#", ""
		if strings.HasSuffix(f, ".go") {
			comment = "//"
		} else if m := aXEP.FindSubmatch(text); m != nil {
			whole = string(m[1])
		}
		for _, line := range strings.Split(string(text), "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), comment) {
				continue
			}
			for _, m := range someOfXEP.FindAllStringSubmatchIndex(line, -1) {
				xep := whole
				if before := aXEP.FindAllStringSubmatch(line[:m[0]], -1); before != nil {
					xep = before[len(before)-1][1]
				}
				if played[xep] != nil {
					each(line[m[2]:m[3]], func(n int) { played[xep][n] = f })
				}
			}
		}
	}
	list, err := os.ReadFile("testdata/examples.list")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(list), "\n") {
		which, reason, _ := strings.Cut(line, ": ")
		m := aXEP.FindStringSubmatch(which)
		if m == nil || strings.HasPrefix(line, "#") {
			continue
		}
		if reason == "" || played[m[1]] == nil {
			t.Errorf("what does %q mean?", line)
			continue
		}
		each(strings.TrimPrefix(which, m[0]), func(n int) {
			if f := played[m[1]][n]; f != "" {
				t.Errorf("XEP-%s example %d is in %s, and in the list of those that are in none", m[1], n, f)
			}
			played[m[1]][n] = "examples.list"
		})
	}
	for xep, count := range documents {
		for n := 1; n <= count; n++ {
			if played[xep][n] == "" {
				t.Errorf("XEP-%s example %d is nowhere", xep, n)
			}
			delete(played[xep], n)
		}
		for n, f := range played[xep] {
			t.Errorf("XEP-%s has no example %d (%s)", xep, n, f)
		}
	}
}
