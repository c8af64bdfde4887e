package main

import "fmt"

// routesLimit is what 100,000 routes may cost, by what one costs.
const routesLimit = 1.05

// The most bytes that an idle connection may take.
const (
	idleLimit    = 10_000
	idleTLSLimit = 28_000
)

// judgeProxy fills in the ratios and the bars of proxy.
func judgeProxy(r *report) {
	for _, c := range proxyCases() {
		base := c.name
		if c.base != "" {
			base = c.base
		}
		for i := range r.Results {
			if x := &r.Results[i]; x.Case == c.name {
				x.compare(r, base)
			}
		}
		x := r.find(c.name, subjectHansa)
		for _, l := range c.limits {
			if peer := r.find(base, l.peer); x != nil && peer != nil {
				r.Bars = append(r.Bars, l.judge(c, base, x, peer))
			}
		}
	}
	if x := r.find(caseConns, subjectHansa); x != nil {
		r.Bars = append(r.Bars, newBar("conns "+figureIdle, idleLimit, x.Figures[figureIdle]),
			newBar("conns "+figureIdleTLS, idleTLSLimit, x.Figures[figureIdleTLS]))
	}
	one, many := r.find(caseRoutes1, subjectHansa), r.find(caseRoutes100k, subjectHansa)
	if one != nil && many != nil {
		r.Bars = append(r.Bars, newBar("routes-100000 CPU / routes-1", routesLimit, many.CPU.Median/one.CPU.Median))
	}
}

// compare fills in x.Ratio with the results of the peers in the case base.
func (x *result) compare(r *report, base string) {
	for _, name := range peerNames() {
		peer := r.find(base, name)
		if peer == nil || peer.Subject == x.Subject || peer.CPU.Median <= 0 {
			continue
		}
		if x.Ratio == nil {
			x.Ratio = map[string]float64{}
		}
		x.Ratio[name] = x.CPU.Median / peer.CPU.Median
	}
}

// judge makes the bar of a limit: hansa's figure in the case c over the peer's in base.
func (l limit) judge(c proxyCase, base string, x, peer *result) bar {
	name, value := "CPU", x.CPU.Median/peer.CPU.Median
	if l.figure == figureP99 {
		name, value = "p99", x.P99/peer.P99
	}
	of := l.peer
	if base != c.name {
		of += " " + base
	}
	return newBar(fmt.Sprintf("%s %s / %s", c.name, name, of), l.most, value)
}
