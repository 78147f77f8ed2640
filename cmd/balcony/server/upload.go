package server

import (
	"context"
	"errors"
	"math"
	"net"
	"path/filepath"
	"strings"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/storage"
	"balcony/xmpp/ext/upload"

	"golang.org/x/net/idna"
)

// newUploads makes the upload service with its folder; nil when it is turned off.
func (s *Server) newUploads(ctx context.Context, cfg config.Upload) (*upload.Module, error) {
	if !cfg.Enabled {
		return nil, nil
	}
	key, err := s.db.Secret(ctx, "upload", 32)
	if err != nil {
		return nil, err
	}
	if s.disk, err = storage.OpenDisk(filepath.Join(s.cfg.Data, "uploads")); err != nil {
		return nil, err
	}
	c := upload.DefaultConfig()
	c.MaxSize, c.Quota, c.ProfileQuota, c.PermanentQuota = size(cfg.MaxSize), size(cfg.Quota), size(cfg.ProfileQuota), size(cfg.PermanentQuota)
	c.Keep = time.Duration(cfg.Keep)
	m := upload.New(c, key, s.db, s.disk, s.baseURL, s.log)
	if err := m.Recover(ctx); err != nil {
		return nil, errors.Join(err, s.disk.Close())
	}
	return m, nil
}

func size(b config.Bytes) int64 {
	if b == config.Off {
		return math.MaxInt64
	}
	return int64(b)
}

// baseURL is the URL under which clients reach this server's HTTP for a domain, empty when they do not: XEP-0363 §4 wants TLS.
func (s *Server) baseURL(domain string) string {
	if d, _ := s.domain(domain); d.URL != "" {
		return strings.TrimSuffix(d.URL, "/")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.listeners["https"]
	if len(list) == 0 {
		return ""
	}
	host, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		host = domain
	}
	if _, port, err := net.SplitHostPort(list[0].Addr().String()); err == nil && port != "443" {
		host = net.JoinHostPort(host, port)
	}
	return "https://" + host
}
