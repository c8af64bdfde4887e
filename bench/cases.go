package main

import "slices"

// The cases of proxy.
const (
	casePlain      = "plain"
	caseKeyQuota   = "key+quota"
	caseTLS        = "tls"
	caseHandshake  = "tls-handshake"
	caseResume     = "tls-resume"
	caseH2         = "h2"
	caseH2TLS      = "h2-tls"
	caseGRPC       = "h2-grpc"
	case64k        = "64k"
	case1m         = "1m"
	casePost16k    = "post-16k"
	caseRoutes1    = "routes-1"
	caseRoutes1k   = "routes-1000"
	caseRoutes100k = "routes-100000"
	caseConns      = "conns"
	caseLatency    = "latency"
)

// proxyCase is one case of proxy: the same load on every subject that has it, round by round.
type proxyCase struct {
	name string
	// group is measured together: the rounds of all its cases take turns.
	group string
	// base is the case whose figures of the peers this one is compared with. Empty: its own. A case with a base is one of
	// hansa's alone.
	base   string
	load   kind
	limits []limit
}

// kind is the way in which a case puts load on its subjects.
type kind uint8

const (
	kindWrk kind = iota
	kindH2load
	kindIdle // wrk, while many connections are idle
	kindOpen // an open loop at a fixed rate
)

// limit is the bar of one figure of hansa next to the same of a peer.
type limit struct {
	peer   string
	most   float64
	figure figure
}

// figure is what a limit compares.
type figure uint8

const (
	figureCPU figure = iota
	figureP99
)

func proxyCases() []proxyCase {
	nginxCPU := func(most float64) limit { return limit{peer: "nginx", most: most} }
	haproxyCPU := limit{peer: "haproxy", most: 1.0}
	envoyCPU := limit{peer: "envoy", most: 0.8}
	return []proxyCase{
		{name: casePlain, group: casePlain, limits: []limit{nginxCPU(1.0), envoyCPU}},
		{name: caseKeyQuota, group: casePlain, base: casePlain, limits: []limit{nginxCPU(1.05), envoyCPU}},
		{name: caseTLS, group: caseTLS, limits: []limit{nginxCPU(1.15), envoyCPU}},
		{name: caseHandshake, group: caseHandshake, limits: []limit{nginxCPU(1.5), envoyCPU}},
		{name: caseResume, group: caseResume, limits: []limit{envoyCPU}},
		{name: caseH2, group: caseH2, load: kindH2load, limits: []limit{nginxCPU(1.3), envoyCPU}},
		{name: caseH2TLS, group: caseH2TLS, load: kindH2load, limits: []limit{nginxCPU(1.3), envoyCPU}},
		{name: caseGRPC, group: caseGRPC, load: kindH2load, limits: []limit{{peer: "envoy", most: 1.0}}},
		{name: case64k, group: case64k, limits: []limit{haproxyCPU, envoyCPU}},
		{name: case1m, group: case1m, limits: []limit{haproxyCPU, envoyCPU}},
		{name: casePost16k, group: casePost16k, limits: []limit{nginxCPU(1.0), envoyCPU}},
		{name: caseRoutes1, group: groupRoutes, base: caseRoutes1},
		{name: caseRoutes1k, group: groupRoutes, base: caseRoutes1},
		{name: caseRoutes100k, group: groupRoutes, base: caseRoutes1},
		{name: caseConns, group: caseConns, load: kindIdle, limits: []limit{envoyCPU}},
		{name: caseLatency, group: caseLatency, load: kindOpen, limits: []limit{{peer: "nginx", most: 1.2, figure: figureP99}}},
	}
}

// groupRoutes is the group of the cases that differ in the number of routes.
const groupRoutes = "routes"

// allCases returns what may be asked for.
func allCases() []string {
	all := []string{"proxy", caseFeed}
	for _, c := range proxyCases() {
		all = append(all, c.name)
	}
	return append(all, groupRoutes)
}

// chosen returns the cases that a name stands for: one, a group, or with "proxy" all. None: there is no such name.
func chosen(name string) []string {
	var names []string
	for _, c := range proxyCases() {
		if name == c.name || name == "proxy" || name == groupRoutes && c.group == groupRoutes {
			names = append(names, c.name)
		}
	}
	return names
}

// groups returns the named cases in the order of the table, in their groups.
func groups(names []string) [][]proxyCase {
	var all [][]proxyCase
	last := ""
	for _, c := range proxyCases() {
		if !slices.Contains(names, c.name) {
			continue
		}
		if c.group != last {
			all, last = append(all, nil), c.group
		}
		all[len(all)-1] = append(all[len(all)-1], c)
	}
	return all
}

func caseNamed(name string) proxyCase {
	all := proxyCases()
	return all[slices.IndexFunc(all, func(c proxyCase) bool { return c.name == name })]
}
