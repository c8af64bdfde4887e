package v1

// ProductSpec describes a product: APIs that are offered together, with limits for each subscription.
type ProductSpec struct {
	// DisplayName is for people.
	DisplayName string `json:"displayName,omitempty"`
	// APIs are the names of the APIs that the product holds.
	APIs []string `json:"apis"`
	// Quota is what the policy quota enforces for each subscription.
	Quota *Limit `json:"quota,omitempty"`
	// RateLimit is what the policy rateLimit enforces for each subscription.
	RateLimit *Limit `json:"rateLimit,omitempty"`
}

// Limit is a number of requests per window.
type Limit struct {
	// Limit is the number of requests; at least 1.
	Limit uint64 `json:"limit"`
	// Window is the length of the window.
	Window Duration `json:"window"`
}

// ApplicationSpec describes a consumer's application.
type ApplicationSpec struct {
	// Owner is whom to ask: an e-mail address or any other text.
	Owner string `json:"owner,omitempty"`
	// DisplayName is for people.
	DisplayName string `json:"displayName,omitempty"`
}

// SubscriptionSpec describes the use of a product by an application. Its keys are made, imported, rotated and
// revoked with "hansa keys".
type SubscriptionSpec struct {
	// Application is the name of the Application.
	Application string `json:"application"`
	// Product is the name of the Product.
	Product string `json:"product"`
	// Suspended subscriptions are refused with 403 not-subscribed.
	Suspended bool `json:"suspended,omitempty"`
}
