package link

import (
	"net"

	"github.com/prometheus/client_golang/prometheus"
)

type clientMetrics struct {
	up, roundTrip                      *prometheus.GaugeVec
	connects, failures, received, sent *prometheus.CounterVec
}

func newClientMetrics(r prometheus.Registerer) (*clientMetrics, error) {
	class := []string{"class"}
	m := &clientMetrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_link_up_ratio",
			Help: "Whether the connection of the class is up (1) or down (0).",
		}, class),
		roundTrip: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_link_round_trip_seconds",
			Help: "The last measured round trip over the connection of the class.",
		}, class),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_connects_total",
			Help: "Connections of the class that were made, the first one included.",
		}, class),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_connect_failures_total",
			Help: "Attempts to make a connection of the class that failed.",
		}, class),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_received_bytes_total",
			Help: "Bytes that came in over connections of the class, TLS included.",
		}, class),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_sent_bytes_total",
			Help: "Bytes that went out over connections of the class, TLS included.",
		}, class),
	}
	return m, registerAll(r, m.up, m.roundTrip, m.connects, m.failures, m.received, m.sent)
}

type serverMetrics struct {
	connections                      *prometheus.GaugeVec
	refusedConnections, refusedCalls *prometheus.CounterVec
	received, sent                   prometheus.Counter
}

func newServerMetrics(r prometheus.Registerer) (*serverMetrics, error) {
	m := &serverMetrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_link_server_connections",
			Help: "Connections that are open, by the role of the other end; anonymous without a certificate.",
		}, []string{"role"}),
		refusedConnections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_server_refused_connections_total",
			Help: "Connections that were refused, by reason.",
		}, []string{"reason"}),
		refusedCalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_link_server_refused_calls_total",
			Help: "Calls that were refused before they reached a service, by reason.",
		}, []string{"reason"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_link_server_received_bytes_total",
			Help: "Bytes that came in over all connections, TLS included.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_link_server_sent_bytes_total",
			Help: "Bytes that went out over all connections, TLS included.",
		}),
	}
	return m, registerAll(r, m.connections, m.refusedConnections, m.refusedCalls, m.received, m.sent)
}

func registerAll(r prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// countingConn counts what goes over a connection.
type countingConn struct {
	net.Conn
	received, sent prometheus.Counter
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(float64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(float64(n))
	return n, err
}
