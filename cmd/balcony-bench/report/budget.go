package report

// budget is a line of the budget: what Balcony's cost must be and is meant to be, and what the others cost in the run in which the budget
// was set. Only the ratios count: machines differ. Where system calls and wake-ups are most of the work (open loop), machines differ even
// in the ratios to servers that compute much; the ratio to the relay then says more.
type budget struct {
	Scenario, Key, Title string
	Must, Aim            float64
	Theirs               map[string]float64
}

// theirs are the costs of the others; the relay's is 0 where it cannot do the work.
func theirs(prosody, gengc, ejabberd, relay float64) map[string]float64 {
	m := map[string]float64{"prosody": prosody, "prosody-gengc": gengc, "ejabberd": ejabberd}
	if relay > 0 {
		m["relay"] = relay
	}
	return m
}

// archives are the costs of the others where messages are archived: in their own storage, of which ours may have half, and in SQLite.
func archives(half, prosody, gengc, ejabberd float64) map[string]float64 {
	return map[string]float64{"prosody": half, "prosody-gengc": half, "ejabberd": half, "prosody-sqlite": prosody, "prosody-sqlite-gengc": gengc, "ejabberd-sqlite": ejabberd}
}

// budgets, in the units of the metrics.
var budgets = []budget{
	{"pairs", "cpu", "message, closed loop, µs", 38, 25, theirs(670, 153, 159, 17)},
	{"open-2000", "cpu", "message, open loop 2000/s, µs", 95, 80, theirs(429, 242, 236, 59)},
	{"open-200", "cpu", "message, open loop 200/s, µs", 180, 140, theirs(1090, 608, 558, 104)},
	{"websocket", "cpu", "WebSocket message, closed loop, µs", 50, 35, theirs(964, 235, 200, 0)},
	{"login", "cpu", "login, µs", 1000, 750, theirs(8100, 3800, 3600, 520)},
	{"fanout", "cpu", "presence received, µs", 19, 12, theirs(228, 100, 76, 0)},
	{"pep", "cpu", "PEP notification received, µs", 18, 12, theirs(405, 120, 70, 0)},
	{"offline", "stored cpu", "offline message stored, µs", 80, 60, theirs(867, 242, 257, 0)},
	{"offline", "delivered cpu", "offline message delivered, µs", 30, 20, theirs(418, 82, 102, 0)},
	{"resume", "cpu", "SM resumption with 2 waiting messages, µs", 1000, 700, theirs(7800, 3600, 3200, 0)},
	{"archive", "cpu", "message archived for both, µs", 200, 100, archives(400, 2600, 2100, 1900)},
	{"catchup", "50 cpu", "page of 50, µs", 1000, 500, archives(2000, 22000, 8000, 7000)},
	{"catchup", "100 cpu", "page of 100, µs", 2000, 1000, archives(4000, 44000, 16000, 14000)},
	{"catchup", "disk", "disk, bytes per message kept for both", 0, 0, nil},
	{"memory", "session 2000", "RSS per session, 2000 sessions, KiB", 20, 14, theirs(50, 72, 82, 21)},
	{"memory", "session 5000", "RSS per session, 5000 sessions, KiB", 20, 14, theirs(50, 72, 82, 21)},
	{"open-2000", "p99", "p99 latency, open loop 2000/s, ms", 4, 4, nil},
}

func isBudget(scenario, key string) bool {
	for _, b := range budgets {
		if b.Scenario == scenario && b.Key == key {
			return true
		}
	}
	return false
}
