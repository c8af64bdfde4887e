package serve

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/link"
)

// LinkPeer is Options.Peer for calls that come over a link.
func LinkPeer(ctx context.Context) (Peer, error) {
	node, ok := link.PeerFrom(ctx)
	if !ok || node.Role != identity.RoleGateway {
		return Peer{}, status.Error(codes.PermissionDenied, "the feed is for gateways that have joined")
	}
	return Peer{Name: node.Name, Organization: node.Organization, Group: node.Group}, nil
}

// Permissions says who may call the services that Register registers: link.ServerOptions.Permissions.
func Permissions() map[string]link.Access {
	return map[string]link.Access{
		linkv1.Feed_Follow_FullMethodName:              link.Gateways,
		linkv1.Events_FollowCredentials_FullMethodName: link.Gateways,
		linkv1.Bulk_Sync_FullMethodName:                link.Gateways,
	}
}
