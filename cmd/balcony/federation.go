package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/server"
	"balcony/xmpp/s2s"
)

// federation shows the streams with other servers, or explains how one would be opened.
func federation(args []string, s std) error {
	explain := len(args) > 0 && args[0] == "explain"
	least, most := 0, 0
	if explain {
		args, least, most = args[1:], 1, 2
	}
	path, rest, err := options(args, least, most)
	if err != nil {
		return err
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lock, client, err := lockOrDial(ctx, cfg.Data)
	if err != nil {
		return err
	}
	if client == nil && !explain {
		return errors.Join(errors.New("the server does not run"), lock.Release())
	}
	var lines []string
	switch {
	case !explain:
		defer client.Close()
		streams, err := client.Streams(ctx)
		if err != nil {
			return err
		}
		return printStreams(s.out, streams, time.Now())
	case client != nil:
		defer client.Close()
		lines, err = client.Explain(ctx, append(rest, "")[1], rest[0])
	default:
		lines, err = explainAlone(ctx, cfg, append(rest, "")[1], rest[0])
		err = errors.Join(err, lock.Release())
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(s.out, l); err != nil {
			return err
		}
	}
	return err
}

// explainAlone explains while no server runs.
func explainAlone(ctx context.Context, cfg *config.Config, local, remote string) ([]string, error) {
	set, err := certs.Load(cfg)
	if err != nil {
		return nil, err
	}
	srv, err := server.New(ctx, cfg, set, slog.New(slog.DiscardHandler), version())
	if err != nil {
		return nil, err
	}
	lines, err := srv.Federation().Explain(ctx, local, remote)
	return lines, errors.Join(err, srv.Shutdown(ctx))
}

// printStreams prints a table: a line for each pair of domains and direction.
func printStreams(w io.Writer, list []s2s.Stream, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "REMOTE\tLOCAL\tDIRECTION\tPROVEN BY\tTLS\tSM\tQUEUE\tUNACKED\tAGE\tADDRESS")
	for _, e := range list {
		direction := map[string]string{"in": "in", "out": "out", "none": "-"}[e.Direction]
		if e.Bidi {
			direction = "both, opened " + direction
		}
		proven := e.Method
		if e.Method == string(s2s.Dialback) && !e.Valid {
			proven += ", certificate not valid"
		}
		tls := e.TLS
		if e.Direct {
			tls += ", direct"
		}
		age, address := "", e.Address
		if !e.Since.IsZero() {
			age = now.Sub(e.Since).Round(time.Second).String()
		}
		if e.Problem != "" {
			address = "no stream: " + strings.Map(printable, e.Problem)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", e.Remote, e.Local, direction, proven, tls, e.SM, e.Queue, e.Unacked, age, address)
	}
	return t.Flush()
}

// printable keeps what other servers have said from moving the cursor.
func printable(r rune) rune {
	if r < 0x20 || r >= 0x7F && r < 0xA0 {
		return ' '
	}
	return r
}
