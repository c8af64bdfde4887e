// Package identity says who a node is and proves it: names and certificates of nodes, the authority that issues them,
// join tokens, and the binding of a data folder to the place where it lies.
//
// A node is named by a URI in its certificate, "hansa://<cluster>/<organization>/<group>/gateway/<name>" or
// "hansa://<cluster>/control/<name>". Certificates are issued by an authority that a control node keeps and the root
// vouches for in the trust document (keys.Trust); they live 30 days by default, as long as a gateway may be without
// its control plane, and are renewed after two thirds of that. An expired certificate is good for nothing but its own
// renewal; a node is shut out by a list, never by waiting for its certificate to expire.
//
// [Control] is what a control node keeps, [Member] what a gateway keeps; [OpenFolder] guards the data folder of
// either. Time is injected. All types are safe for concurrent use. The package is used by link, bundle, control and
// app; it does no network I/O.
package identity

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// What is wrong with an identity.
var (
	// ErrNotNode: the certificate does not name a node of the cluster.
	ErrNotNode = errors.New("not a node certificate of this cluster")
	// ErrUnknownAuthority: no authority of the trust document issued the certificate. A newer document may know it.
	ErrUnknownAuthority = errors.New("issued by an unknown authority")
	// ErrNotEnrolled: the node has no certificate yet.
	ErrNotEnrolled = errors.New("the node has not joined a cluster")
	// ErrNoRoot: the root key is not at hand, so that the trust document cannot be changed here.
	ErrNoRoot = errors.New("the root key is not on this node")
	// ErrBadToken: the text is not a join token.
	ErrBadToken = errors.New("not a join token")
	// ErrClone: the data folder is a copy, or was moved to another machine.
	ErrClone = errors.New("the data folder is a copy of another node's")
)

// Role is what a node does in its cluster.
type Role string

// The roles.
const (
	RoleGateway Role = "gateway"
	RoleControl Role = "control"
)

const uriScheme = "hansa://"

// Node names a node. Organization and Group are empty for control nodes.
type Node struct {
	Cluster      string
	Role         Role
	Organization string
	Group        string
	Name         string
}

// Gateway names a gateway.
func Gateway(cluster, organization, group, name string) Node {
	return Node{Cluster: cluster, Role: RoleGateway, Organization: organization, Group: group, Name: name}
}

// ControlNode names a control node.
func ControlNode(cluster, name string) Node {
	return Node{Cluster: cluster, Role: RoleControl, Name: name}
}

// View returns "<organization>/<group>", the name of the configuration that a gateway runs; "" for a control node.
func (n Node) View() string {
	if n.Role != RoleGateway {
		return ""
	}
	return n.Organization + "/" + n.Group
}

// String returns the URI of the node.
func (n Node) String() string {
	if n.Role == RoleGateway {
		return uriScheme + n.Cluster + "/" + n.Organization + "/" + n.Group + "/gateway/" + n.Name
	}
	return uriScheme + n.Cluster + "/control/" + n.Name
}

// Validate returns an error if a name is missing or is not 1 to 63 characters of a-z, 0-9, "-" and ".", the first and
// last one a letter or a digit.
func (n Node) Validate() error {
	if n.Role != RoleGateway && n.Role != RoleControl {
		return fmt.Errorf("node: unknown role %q", n.Role)
	}
	parts := [][2]string{{"cluster", n.Cluster}, {"name", n.Name}}
	if n.Role == RoleGateway {
		parts = append(parts, [2]string{"organization", n.Organization}, [2]string{"group", n.Group})
	} else if n.Organization != "" || n.Group != "" {
		return errors.New("node: a control node belongs to no organization and no group")
	}
	for _, p := range parts {
		if err := validateName(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

func validateName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q: want 1 to 63 characters of a-z, 0-9, \"-\" and \".\", beginning and ending with a letter or digit", what, name)
	}
	return nil
}

// ParseNode reads the URI of a node. Nothing is decoded or normalised: each node has one spelling.
func ParseNode(uri string) (Node, error) {
	rest, ok := strings.CutPrefix(uri, uriScheme)
	if !ok {
		return Node{}, fmt.Errorf("node %.200q: want %s…", uri, uriScheme)
	}
	var n Node
	switch parts := strings.Split(rest, "/"); {
	case len(parts) == 5 && parts[3] == string(RoleGateway):
		n = Gateway(parts[0], parts[1], parts[2], parts[4])
	case len(parts) == 3 && parts[1] == string(RoleControl):
		n = ControlNode(parts[0], parts[2])
	default:
		return Node{}, fmt.Errorf("node %.200q: want %s<cluster>/<organization>/<group>/gateway/<name> or %s<cluster>/control/<name>",
			uri, uriScheme, uriScheme)
	}
	if err := n.Validate(); err != nil {
		return Node{}, fmt.Errorf("node %.200q: %w", uri, err)
	}
	return n, nil
}
