package v1

// The kinds of resources.
const (
	KindOrganization     Kind = "Organization"
	KindSite             Kind = "Site"
	KindGatewayGroup     Kind = "GatewayGroup"
	KindEnvironment      Kind = "Environment"
	KindEnvironmentGroup Kind = "EnvironmentGroup"
	KindBackend          Kind = "Backend"
	KindAPI              Kind = "API"
	KindAPIRevision      Kind = "APIRevision"
	KindDeployment       Kind = "Deployment"
	KindProduct          Kind = "Product"
	KindApplication      Kind = "Application"
	KindSubscription     Kind = "Subscription"
	KindPrincipal        Kind = "Principal"
	KindJoinToken        Kind = "JoinToken"
	KindGateway          Kind = "Gateway"
	KindGroupKey         Kind = "GroupKey"
	KindCertificate      Kind = "Certificate"
	KindCertificateKey   Kind = "CertificateKey"
	KindCertificateOrder Kind = "CertificateOrder"
	KindACMEAccount      Kind = "ACMEAccount"
)

// KindInfo is one row of the table of kinds.
type KindInfo struct {
	Kind   Kind
	Plural string // the segment in URLs and the word of the command line: "gatewaygroups"
	// Global kinds belong to no organization.
	Global bool
	// System kinds are written by Hansa alone; apply and delete refuse them.
	System bool
	// Private kinds are shown to nobody: they are what Hansa works with. All of them are System, too.
	Private bool
	NewSpec func() Spec
}

// Kinds returns the table of kinds, in the order in which resources are best applied: what is referred to comes
// before what refers to it.
func Kinds() []KindInfo {
	return []KindInfo{
		{Kind: KindOrganization, Plural: "organizations", Global: true, NewSpec: func() Spec { return new(OrganizationSpec) }},
		{Kind: KindPrincipal, Plural: "principals", Global: true, NewSpec: func() Spec { return new(PrincipalSpec) }},
		{Kind: KindSite, Plural: "sites", NewSpec: func() Spec { return new(SiteSpec) }},
		{Kind: KindGatewayGroup, Plural: "gatewaygroups", NewSpec: func() Spec { return new(GatewayGroupSpec) }},
		{Kind: KindEnvironment, Plural: "environments", NewSpec: func() Spec { return new(EnvironmentSpec) }},
		{Kind: KindEnvironmentGroup, Plural: "environmentgroups", NewSpec: func() Spec { return new(EnvironmentGroupSpec) }},
		{Kind: KindCertificate, Plural: "certificates", NewSpec: func() Spec { return new(CertificateSpec) }},
		{Kind: KindBackend, Plural: "backends", NewSpec: func() Spec { return new(BackendSpec) }},
		{Kind: KindAPI, Plural: "apis", NewSpec: func() Spec { return new(APISpec) }},
		{Kind: KindAPIRevision, Plural: "apirevisions", System: true, NewSpec: func() Spec { return new(APIRevisionSpec) }},
		{Kind: KindDeployment, Plural: "deployments", NewSpec: func() Spec { return new(DeploymentSpec) }},
		{Kind: KindProduct, Plural: "products", NewSpec: func() Spec { return new(ProductSpec) }},
		{Kind: KindApplication, Plural: "applications", NewSpec: func() Spec { return new(ApplicationSpec) }},
		{Kind: KindSubscription, Plural: "subscriptions", NewSpec: func() Spec { return new(SubscriptionSpec) }},
		{Kind: KindJoinToken, Plural: "jointokens", System: true, NewSpec: func() Spec { return new(JoinTokenSpec) }},
		{Kind: KindGateway, Plural: "gateways", System: true, NewSpec: func() Spec { return new(GatewaySpec) }},
		{Kind: KindGroupKey, Plural: "groupkeys", System: true, Private: true, NewSpec: func() Spec { return new(GroupKeySpec) }},
		{Kind: KindCertificateKey, Plural: "certificatekeys", System: true, Private: true, NewSpec: func() Spec { return new(CertificateKeySpec) }},
		{Kind: KindCertificateOrder, Plural: "certificateorders", System: true, Private: true, NewSpec: func() Spec { return new(CertificateOrderSpec) }},
		{Kind: KindACMEAccount, Plural: "acmeaccounts", System: true, Private: true, NewSpec: func() Spec { return new(ACMEAccountSpec) }},
	}
}

// Lookup returns the row of kind k.
func Lookup(k Kind) (KindInfo, bool) {
	for _, info := range Kinds() {
		if info.Kind == k {
			return info, true
		}
	}
	return KindInfo{}, false
}

// Kind implements Spec.
func (*OrganizationSpec) Kind() Kind     { return KindOrganization }
func (*SiteSpec) Kind() Kind             { return KindSite }             // Kind implements Spec.
func (*GatewayGroupSpec) Kind() Kind     { return KindGatewayGroup }     // Kind implements Spec.
func (*EnvironmentSpec) Kind() Kind      { return KindEnvironment }      // Kind implements Spec.
func (*EnvironmentGroupSpec) Kind() Kind { return KindEnvironmentGroup } // Kind implements Spec.
func (*BackendSpec) Kind() Kind          { return KindBackend }          // Kind implements Spec.
func (*APISpec) Kind() Kind              { return KindAPI }              // Kind implements Spec.
func (*APIRevisionSpec) Kind() Kind      { return KindAPIRevision }      // Kind implements Spec.
func (*DeploymentSpec) Kind() Kind       { return KindDeployment }       // Kind implements Spec.
func (*ProductSpec) Kind() Kind          { return KindProduct }          // Kind implements Spec.
func (*ApplicationSpec) Kind() Kind      { return KindApplication }      // Kind implements Spec.
func (*SubscriptionSpec) Kind() Kind     { return KindSubscription }     // Kind implements Spec.
func (*PrincipalSpec) Kind() Kind        { return KindPrincipal }        // Kind implements Spec.
func (*JoinTokenSpec) Kind() Kind        { return KindJoinToken }        // Kind implements Spec.
func (*GatewaySpec) Kind() Kind          { return KindGateway }          // Kind implements Spec.
func (*CertificateSpec) Kind() Kind      { return KindCertificate }      // Kind implements Spec.
func (*CertificateKeySpec) Kind() Kind   { return KindCertificateKey }   // Kind implements Spec.
func (*CertificateOrderSpec) Kind() Kind { return KindCertificateOrder } // Kind implements Spec.
func (*ACMEAccountSpec) Kind() Kind      { return KindACMEAccount }      // Kind implements Spec.
func (*GroupKeySpec) Kind() Kind         { return KindGroupKey }         // Kind implements Spec.
