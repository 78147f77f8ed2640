package main

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	s, err := parse([]string{"-servers", "relay,balcony", "-scenarios", "open-50,memory", "-rates", "50", "-sessions", "20,10"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.servers, []string{"relay", "balcony"}) || !slices.Equal(s.Sessions, []int{10, 20}) {
		t.Errorf("servers %v, sessions %v", s.servers, s.Sessions)
	}
	chosen, err := s.choose()
	if err != nil || len(chosen) != 2 || chosen[0].Name != "open-50" || chosen[0].Rate != 50 || chosen[1].Name != "memory" {
		t.Errorf("scenarios %v, %v", chosen, err)
	}
	for _, bad := range [][]string{{"-rates", "0"}, {"-sessions", "x"}, {"-reps", "0"}, {"-concurrency", "1000"}, {"extra"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v passed", bad)
		}
	}
	s.scenarios = []string{"open-51"}
	if _, err := s.choose(); err == nil {
		t.Error("an unknown scenario passed")
	}
}
