package server

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// pprofEnv names the environment variable with the address on which net/http/pprof answers, for measurements. Unset, as it should be in
// service, there is none; only loopback addresses are taken.
const pprofEnv = "BALCONY_PPROF"

// profile serves pprof until Shutdown.
func (s *Server) profile(addr string) error {
	if a, err := netip.ParseAddrPort(addr); err != nil || !a.Addr().IsLoopback() {
		return fmt.Errorf("%s=%q is not a loopback address and port", pprofEnv, addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", pprofEnv, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.serving.Go(func() { _ = srv.Serve(l) })
	s.serving.Go(func() {
		<-s.ctx.Done()
		_ = srv.Close()
	})
	return nil
}
