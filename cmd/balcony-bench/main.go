// Command balcony-bench gives the same work to Balcony, Prosody and ejabberd on loopback and measures what it costs each of them. It
// starts and stops the servers itself, in a temporary folder. docs/benchmarks.md describes the scenarios and the output.
//
//	balcony-bench [flags]
//	balcony-bench report FILE...                              print the tables of runs that were stored with -json
//	balcony-bench relay -listen ADDR -cert FILE -key FILE     the floor to compare with; the benchmark starts it itself
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"balcony/cmd/balcony-bench/client"
	"balcony/cmd/balcony-bench/load"
	"balcony/cmd/balcony-bench/relay"
	"balcony/cmd/balcony-bench/report"
	"balcony/cmd/balcony-bench/servers"
)

func main() {
	log.SetFlags(log.Ltime)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	var err error
	switch command {
	case "relay":
		err = serveRelay(ctx, os.Args[2:])
	case "report":
		err = reprint(os.Args[2:])
	default:
		err = bench(ctx, os.Args[1:])
	}
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// serveRelay runs the relay until the context ends.
func serveRelay(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("balcony-bench relay", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`address` to listen on")
	cert := flags.String("cert", "", "certificate `file`, PEM")
	key := flags.String("key", "", "key `file`, PEM")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return relay.Serve(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
}

// reprint prints stored runs.
func reprint(files []string) error {
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var r report.Run
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.Text(os.Stdout)
	}
	return nil
}

// settings are the flags of a run.
type settings struct {
	load.Options
	servers, scenarios     []string
	rates                  []int
	repetitions            int
	mechanism              string
	hybrid                 bool
	balcony, runAs         string
	dir, jsonFile, profile string
	keep                   bool
}

func parse(args []string) (*settings, error) {
	s := new(settings)
	flags := flag.NewFlagSet("balcony-bench", flag.ContinueOnError)
	serverList := flags.String("servers", strings.Join(servers.Default, ","), "`names` of the servers, comma-separated, of "+strings.Join(servers.Names, ", "))
	scenarioList := flags.String("scenarios", "all", "`names` of the scenarios, comma-separated: pairs, open-RATE, websocket, websocket-RATE, login, fanout, pep, offline, resume, fast, restart, roundtrips, archive, catchup, s2s, memory, websocket-memory")
	rateList := flags.String("rates", "2000,200", "`messages` per second of the open-loop scenarios, comma-separated")
	sessionList := flags.String("sessions", "2000,5000", "`numbers` of idle sessions at which memory is read, comma-separated")
	flags.IntVar(&s.repetitions, "reps", 3, "repetitions of each scenario on each server; the median counts")
	flags.DurationVar(&s.Duration, "duration", 8*time.Second, "measured time of the scenarios that run for a time")
	flags.DurationVar(&s.Warmup, "warmup", 2*time.Second, "load before the measured time")
	flags.DurationVar(&s.Settle, "settle", 40*time.Second, "rest of the sessions before each reading of memory")
	flags.IntVar(&s.Pairs, "pairs", 100, "pairs of accounts that exchange messages")
	flags.IntVar(&s.Contacts, "contacts", 200, "contacts that receive a presence or a notification")
	flags.IntVar(&s.Concurrency, "concurrency", 16, "logins, or senders of offline messages, at the same time; at most 256")
	flags.IntVar(&s.Spools, "spools", 200, "accounts that offline messages are stored for")
	flags.IntVar(&s.Spooled, "spooled", 20, "offline messages stored for each of them")
	flags.IntVar(&s.Archived, "archived", 5000, "messages in the archive that a client reads")
	flags.StringVar(&s.mechanism, "mechanism", "SCRAM-SHA-1", "SASL `mechanism`: SCRAM-SHA-1, SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN; all servers have SCRAM-SHA-1 keys")
	flags.BoolVar(&s.hybrid, "hybrid", false, "let the client offer post-quantum key exchange, which only Go servers take; default: X25519 for all")
	flags.StringVar(&s.balcony, "balcony", "", "`path` of the balcony binary; default: build it")
	flags.StringVar(&s.runAs, "run-as", "nobody", "`account` that the servers run as when the benchmark is run by root")
	flags.StringVar(&s.dir, "dir", "", "`folder` for configurations, data and logs; default: a temporary one")
	flags.BoolVar(&s.keep, "keep", false, "do not remove the temporary folder")
	flags.StringVar(&s.jsonFile, "json", "", "write all samples to this `file`")
	flags.StringVar(&s.profile, "profile", "", "afterwards run each scenario once more on Balcony and write its profiles to this `folder`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if s.rates, err = numbers(*rateList); err != nil {
		return nil, fmt.Errorf("-rates: %w", err)
	}
	if s.Sessions, err = numbers(*sessionList); err != nil {
		return nil, fmt.Errorf("-sessions: %w", err)
	}
	slices.Sort(s.Sessions)
	s.servers, s.scenarios = strings.Split(*serverList, ","), strings.Split(*scenarioList, ",")
	for name, n := range map[string]int{"reps": s.repetitions, "pairs": s.Pairs, "contacts": s.Contacts, "concurrency": s.Concurrency, "spools": s.Spools, "spooled": s.Spooled, "archived": s.Archived} {
		if n < 1 {
			return nil, fmt.Errorf("-%s must be at least 1", name)
		}
	}
	if s.Concurrency > 256 {
		return nil, errors.New("-concurrency is at most 256")
	}
	return s, nil
}

// numbers parses a list of positive integers.
func numbers(list string) ([]int, error) {
	var all []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a positive number", word)
		}
		all = append(all, n)
	}
	return all, nil
}

// choose returns the scenarios of the flags.
func (s *settings) choose() ([]load.Scenario, error) {
	all := load.Scenarios(s.rates)
	if slices.Equal(s.scenarios, []string{"all"}) {
		return all, nil
	}
	var chosen []load.Scenario
	for _, name := range s.scenarios {
		i := slices.IndexFunc(all, func(sc load.Scenario) bool { return sc.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown scenario %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func bench(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	scenarios, err := s.choose()
	if err != nil {
		return err
	}
	debug.SetGCPercent(400) // the driver shares the machine with what it measures
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "balcony-bench-"); err != nil {
			return err
		}
		if !s.keep {
			defer os.RemoveAll(s.dir)
		}
	} else if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	env, err := servers.NewEnv(s.dir, "localhost", s.runAs)
	if err != nil {
		return err
	}
	env.Balcony = s.balcony
	b := &run{settings: s, env: env, dialer: client.Dialer{Domain: env.Domain, Password: env.Password, Mechanism: s.mechanism, Keys: new(client.KeyCache),
		TLS: &tls.Config{ServerName: env.Domain, RootCAs: env.Roots, MinVersion: tls.VersionTLS13}}}
	if !s.hybrid {
		b.dialer.TLS.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	b.report = report.Run{Started: time.Now(), Host: host(), Command: os.Args, Servers: s.servers}
	for _, sc := range scenarios {
		b.report.Scenarios = append(b.report.Scenarios, sc.Heading)
	}
	if err := b.all(ctx, scenarios); err != nil {
		return err
	}
	b.report.Text(os.Stdout)
	if s.jsonFile != "" {
		f, err := os.Create(s.jsonFile)
		if err != nil {
			return err
		}
		if err := errors.Join(b.report.JSON(f), f.Close()); err != nil {
			return err
		}
	}
	if b.failures > 0 {
		return fmt.Errorf("%d measurements failed", b.failures)
	}
	return nil
}

// host describes the machine.
func host() string {
	model := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s", model, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version())
}
