package router

import (
	"balcony/xmpp"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/stanza"
)

// Metrics counts what the router sees. No label ever carries an address.
type Metrics struct {
	sessions prometheus.Gauge
	stanzas  *prometheus.CounterVec
	errors   *prometheus.CounterVec
	inKind   [4]prometheus.Counter // stanzas by kind, resolved once
	outKind  [4]prometheus.Counter
}

// NewMetrics makes the router's metrics and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "balcony_sessions", Help: "Bound client sessions."}),
		stanzas: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "balcony_stanzas_total",
			Help: "Stanzas from local sessions (in) and to local sessions (out), by kind."}, []string{"kind", "direction"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "balcony_stanza_errors_total",
			Help: "Stanza errors that the server gave, by condition."}, []string{"condition"}),
	}
	for _, k := range []xmpp.Kind{xmpp.Message, xmpp.Presence, xmpp.IQ} {
		m.inKind[k] = m.stanzas.WithLabelValues(k.String(), "in")
		m.outKind[k] = m.stanzas.WithLabelValues(k.String(), "out")
	}
	reg.MustRegister(m.sessions, m.stanzas, m.errors)
	return m
}

func (m *Metrics) in(k xmpp.Kind)  { m.inKind[k].Inc() }
func (m *Metrics) out(k xmpp.Kind) { m.outKind[k].Inc() }

func (m *Metrics) failed(c stanza.Condition) { m.errors.WithLabelValues(string(c)).Inc() }
