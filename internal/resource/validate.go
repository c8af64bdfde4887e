package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// The bounds of what one resource may hold. They are far above what people write, and keep one resource from
// weighing down every node.
const (
	maxLabels        = 64
	maxHostnames     = 1000
	maxList          = 10_000 // references in one list
	maxEndpoints     = 256
	maxOperations    = 50_000
	maxPolicies      = 64
	maxOperationName = 256
	maxShortText     = 256
	maxLongText      = 16 << 10
	maxCA            = 256 << 10
	maxCRL           = 1 << 20
	maxHeaderValue   = 8 << 10
	maxBody          = 64 << 10
	maxDefinition    = 20 << 20
	maxLimit         = 1_000_000_000_000_000
)

// enums returns the values that a field may have besides "", by type and field as in docs.json. Schema shows them too.
func enums() map[string][]string {
	return map[string][]string{
		"BackendSpec.protocol":      {"http", "https"},
		"BackendSpec.httpVersion":   {"1.0", "1.1", "2", "auto"},
		"BackendSpec.proxyProtocol": {"v1", "v2"},
		"Discovery.type":            {"dns", "srv"},
		"Discovery.family":          {"any", "ipv4", "ipv6"},
		"LoadBalancing.method":      {"roundRobin", "random", "leastRequests", "responseTime", "consistentHash"},
		"HealthCheck.type":          {"http", "tcp", "grpc"},
		"ClientCertificate.mode":    {"none", "optional", "required"},
		"ClientCertificate.forward": {"none", "certificate", "chain"},
		"HostTLS.minVersion":        {"1.2", "1.3"},
		"BackendTLS.minVersion":     {"1.2", "1.3"},
		"Definition.format":         {"openapi"},
		"ACME.challenge":            {"http-01", "tls-alpn-01"},
		"ACME.keyType":              {"ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096"},
		"RateLimitPolicy.by":        {"subscription", "application", "clientIP", "api"},
		"QuotaPolicy.by":            {"subscription", "application", "api"},
		"RoleBinding.role":          {"admin", "editor", "viewer"},
	}
}

// Validate checks every rule that needs no other resource, and returns all faults, without places in files. The
// defaults must be filled in.
func Validate(o *v1.Object) []v1.Fault {
	c := &checker{object: o}
	c.metadata()
	switch spec := o.Spec.(type) {
	case *v1.OrganizationSpec:
		c.short("spec.displayName", spec.DisplayName)
		c.long("spec.description", spec.Description)
	case *v1.SiteSpec:
		c.short("spec.cloud", spec.Cloud)
		c.short("spec.region", spec.Region)
		c.short("spec.zone", spec.Zone)
		c.short("spec.jurisdiction", spec.Jurisdiction)
	case *v1.GatewayGroupSpec:
		c.ref("spec.site", spec.Site)
	case *v1.EnvironmentSpec:
		c.environment(spec)
	case *v1.EnvironmentGroupSpec:
		c.environmentGroup(spec)
	case *v1.BackendSpec:
		c.backend(spec)
	case *v1.APISpec:
		c.api("spec", spec)
	case *v1.APIRevisionSpec:
		c.apiRevision(spec)
	case *v1.DeploymentSpec:
		c.ref("spec.api", spec.API)
		c.ref("spec.environment", spec.Environment)
	case *v1.ProductSpec:
		c.product(spec)
	case *v1.ApplicationSpec:
		c.short("spec.owner", spec.Owner)
		c.short("spec.displayName", spec.DisplayName)
	case *v1.SubscriptionSpec:
		c.ref("spec.application", spec.Application)
		c.ref("spec.product", spec.Product)
	case *v1.PrincipalSpec:
		c.principal(spec)
	case *v1.JoinTokenSpec:
		c.ref("spec.gatewayGroup", spec.GatewayGroup)
		c.sha256("spec.sha256", spec.SHA256)
	case *v1.GatewaySpec:
		c.ref("spec.gatewayGroup", spec.GatewayGroup)
		c.sha256("spec.publicKey", spec.PublicKey)
	case *v1.CertificateSpec:
		c.certificate(spec)
	case *v1.GroupKeySpec, *v1.CertificateKeySpec, *v1.CertificateOrderSpec, *v1.ACMEAccountSpec: // written by Hansa alone, which knows better
	default:
		c.fault("kind", CodeUnknownKind, string(o.Kind), "the resource has no spec of a known kind", "write one of: "+kindList())
	}
	return c.faults
}

func validateMetadata(o *v1.Object) []v1.Fault {
	c := &checker{object: o}
	c.metadata()
	return c.faults
}

// checker collects the faults of one resource.
type checker struct {
	object *v1.Object
	faults []v1.Fault
}

func (c *checker) fault(path, code, value, message, remedy string) {
	o := c.object
	c.faults = append(c.faults, v1.Fault{
		Kind: string(o.Kind), Name: o.Metadata.Name, Organization: o.Metadata.Organization,
		Path: path, Code: code, Value: shorten(value), Message: message, Remedy: remedy,
	})
}

func (c *checker) metadata() {
	m := &c.object.Metadata
	most := 63
	if c.object.Kind == v1.KindAPIRevision {
		most = 84 // "<api>.<revision>"
	}
	if !validName(m.Name, most) {
		c.fault("metadata.name", nameCode(m.Name), m.Name, fmt.Sprintf("%q is not a name", shorten(m.Name)), nameRemedy)
	}
	info, ok := v1.Lookup(c.object.Kind)
	switch {
	case ok && info.Global && m.Organization != "":
		c.fault("metadata.organization", CodeInvalid, m.Organization, fmt.Sprintf("resources of kind %s belong to no organization", c.object.Kind), "remove the field")
	case ok && !info.Global && !validName(m.Organization, 63):
		c.fault("metadata.organization", nameCode(m.Organization), m.Organization, fmt.Sprintf("%q is not the name of an organization", shorten(m.Organization)), nameRemedy)
	}
	if len(m.Labels) > maxLabels {
		c.tooMany("metadata.labels", len(m.Labels), maxLabels)
	}
	for _, k := range sortedKeys(m.Labels) {
		const remedy = `write 1 to 63 letters, digits, "-", "_", "." and "/", the first and the last one a letter or a digit`
		if !validLabel(k) {
			c.fault(key("metadata.labels", k), CodeInvalid, k, fmt.Sprintf("%q is not the key of a label", shorten(k)), remedy)
		}
		if v := m.Labels[k]; v != "" && !validLabel(v) {
			c.fault(key("metadata.labels", k), CodeInvalid, v, fmt.Sprintf("%q is not the value of a label", shorten(v)), remedy)
		}
	}
}

const nameRemedy = `write 1 to 63 characters of a-z, 0-9, "-" and ".", the first and the last one a letter or a digit`

func nameCode(name string) string {
	if name == "" {
		return CodeRequired
	}
	return CodeInvalid
}

func (c *checker) tooMany(path string, n, most int) {
	c.fault(path, CodeOutOfRange, fmt.Sprint(n), fmt.Sprintf("there are %d items and may be %d", n, most), "split the resource")
}

// ref checks the name of another resource of the same organization.
func (c *checker) ref(path, name string) {
	if !validName(name, 63) {
		c.fault(path, nameCode(name), name, fmt.Sprintf("%q is not the name of a resource", shorten(name)), nameRemedy)
	}
}

// refs checks a list of names without repetition.
func (c *checker) refs(path string, names []string) {
	if len(names) > maxList {
		c.tooMany(path, len(names), maxList)
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		c.ref(index(path, i), name)
		if seen[name] {
			c.duplicate(index(path, i), name)
		}
		seen[name] = true
	}
}

func (c *checker) duplicate(path, value string) {
	c.fault(path, CodeDuplicateItem, value, fmt.Sprintf("%q is there twice", shorten(value)), "keep one of the two")
}

func (c *checker) short(path, s string) { c.textOf(path, s, maxShortText, false) }

func (c *checker) long(path, s string) { c.textOf(path, s, maxLongText, true) }

func (c *checker) textOf(path, s string, most int, lines bool) {
	if len(s) > most {
		c.fault(path, CodeOutOfRange, s, fmt.Sprintf("the text has %d bytes and may have %d", len(s), most), "shorten it")
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return (r < 0x20 || r == 0x7f) && (!lines || r != '\n' && r != '\t' && r != '\r') }); i >= 0 {
		c.fault(path, CodeInvalid, s, fmt.Sprintf("the text holds the control character %#02x", s[i]), "remove it")
	}
}

// enum checks a value against the table of enums. Absent values have been defaulted or are faults elsewhere.
func (c *checker) enum(path, field, value string) {
	if allowed := enums()[field]; value != "" && !slices.Contains(allowed, value) {
		c.fault(path, CodeInvalid, value, fmt.Sprintf("%q is not one of the values of this field", shorten(value)), didYouMean(value, allowed, "write one of: "+joinWords(allowed)))
	}
}

// between checks a duration. Zero, which is "not set" after defaulting of optional fields, is checked like any other.
func (c *checker) between(path string, d v1.Duration, least, most time.Duration) {
	if d.Std() < least || d.Std() > most {
		c.fault(path, CodeOutOfRange, d.String(), fmt.Sprintf("%s is out of range", d), fmt.Sprintf("write %s to %s", v1.Duration(least), v1.Duration(most)))
	}
}

func (c *checker) number(path string, n, least, most int64) {
	if n < least || n > most {
		c.fault(path, CodeOutOfRange, fmt.Sprint(n), fmt.Sprintf("%d is out of range", n), fmt.Sprintf("write %d to %d", least, most))
	}
}

func (c *checker) sha256(path, s string) {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		c.fault(path, CodeInvalid, s, "it is not a SHA-256", "write 64 hexadecimal digits in lower case")
	}
}

// limit checks a number of requests per window.
func (c *checker) limit(path string, l *v1.Limit, least, most time.Duration) {
	if l == nil {
		return
	}
	c.requests(join(path, "limit"), l.Limit)
	c.between(join(path, "window"), l.Window, least, most)
}

func (c *checker) requests(path string, n uint64) {
	if n < 1 || n > maxLimit {
		c.fault(path, CodeOutOfRange, fmt.Sprint(n), fmt.Sprintf("%d is out of range", n), fmt.Sprintf("write 1 to %d", uint64(maxLimit)))
	}
}

// The windows of limits.
const (
	leastWindow     = time.Second
	mostRateWindow  = time.Hour
	mostQuotaWindow = 366 * 24 * time.Hour
)

func (c *checker) product(p *v1.ProductSpec) {
	c.short("spec.displayName", p.DisplayName)
	c.refs("spec.apis", p.APIs)
	c.limit("spec.quota", p.Quota, leastWindow, mostQuotaWindow)
	c.limit("spec.rateLimit", p.RateLimit, leastWindow, mostRateWindow)
}

func (c *checker) principal(p *v1.PrincipalSpec) {
	seen := map[v1.RoleBinding]bool{}
	for i, r := range p.Roles {
		path := index("spec.roles", i)
		if r.Organization != "*" {
			c.ref(join(path, "organization"), r.Organization)
		}
		if r.Role == "" {
			c.fault(join(path, "role"), CodeRequired, "", "the role is empty", "write admin, editor or viewer")
		}
		c.enum(join(path, "role"), "RoleBinding.role", r.Role)
		if seen[r] {
			c.duplicate(path, r.Role)
		}
		seen[r] = true
	}
	for i, t := range p.Tokens {
		c.short(join(index("spec.tokens", i), "id"), t.ID)
		c.sha256(join(index("spec.tokens", i), "sha256"), t.SHA256)
	}
}

func (c *checker) apiRevision(r *v1.APIRevisionSpec) {
	c.ref("spec.api", r.API)
	if want := RevisionName(r.API, r.Revision); c.object.Metadata.Name != want || r.Revision == 0 {
		c.fault("metadata.name", CodeInvalid, c.object.Metadata.Name, "a revision is named by its API and its number, from 1", "write "+want)
	}
	c.api("spec.spec", &r.Spec)
}

// RevisionName returns the name of the APIRevision of an API.
func RevisionName(api string, revision uint64) string { return fmt.Sprintf("%s.%d", api, revision) }
