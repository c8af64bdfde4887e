package resource

import v1 "hansa.dev/hansa/api/v1"

// Limits bound what Decode accepts. A zero field takes its default.
type Limits struct {
	// DocumentBytes bounds one document. Default: 32 MiB.
	DocumentBytes int
	// Depth bounds the nesting of one document. Default: 64.
	Depth int
	// Nodes bounds the values of one document, each as often as aliases repeat it; JSON values in
	// a row count for themselves. Default: 1,000,000.
	Nodes int
	// Faults bounds the faults that are reported. Default: 1,000.
	Faults int
}

// Options tell Decode what to expect.
type Options struct {
	// Organization is where resources belong that name none. Default: "default".
	Organization string
	// System accepts the kinds that only Hansa writes, for what it exported itself.
	System bool
	// Identity reads apiVersion, kind and metadata only, for deletion: spec may be absent and is not looked at.
	Identity bool
	Limits   Limits
}

func (o Options) withDefaults() Options {
	if o.Organization == "" {
		o.Organization = v1.DefaultOrganization
	}
	orInt(&o.Limits.DocumentBytes, 32<<20)
	orInt(&o.Limits.Depth, 64)
	orInt(&o.Limits.Nodes, 1_000_000)
	orInt(&o.Limits.Faults, 1000)
	return o
}

func orInt(p *int, def int) {
	if *p == 0 {
		*p = def
	}
}
