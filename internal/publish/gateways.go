package publish

import (
	"context"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/store"
)

// Gateways shows the gateways that follow the feed of this control node, in the words of the API.
type Gateways struct {
	Server *serve.Server
}

// WaitApplied blocks until every connected gateway of the views has acknowledged the version or a later one, or until ctx
// ends, and returns the names of those that have not or have refused it.
func (g Gateways) WaitApplied(ctx context.Context, views []string, v store.Version) (missing []string, err error) {
	return g.Server.WaitApplied(ctx, views, v.Epoch, v.Seq), nil
}

// GatewayStatus returns what is known of the gateways of an organization ("": of all) that have called since the start.
func (g Gateways) GatewayStatus(organization string) []v1.GatewayStatus {
	var all []v1.GatewayStatus
	for _, s := range g.Server.Gateways() {
		if organization != "" && s.Organization != organization {
			continue
		}
		st := v1.GatewayStatus{
			Name: s.Name, Organization: s.Organization, Site: s.Site, Group: s.Group, Role: s.Role, Version: s.Version,
			Epoch: s.Epoch, Seq: s.Seq, AgeSeconds: int64(s.Age.Seconds()), Link: "down",
		}
		if s.Link {
			st.Link = "up"
		}
		if !s.Digest.IsZero() {
			st.Digest = s.Digest.String()
		}
		if r := s.LastRefusal; r != nil {
			st.LastRefusal = &v1.Refusal{Code: r.Code, Message: r.Error(), At: r.At}
		}
		all = append(all, st)
	}
	return all
}
