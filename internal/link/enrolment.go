package link

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/secret"
)

// Why a gateway may not join or renew. An EnrolmentStore returns them, and Enrol and Keeper give them back.
var (
	// ErrTokenInvalid: there is no such token, its secret is another one, or it has expired. Which, is not said.
	ErrTokenInvalid = errors.New("the join token is not valid: it does not exist, or it has expired; make another with \"hansa jointokens create\"")
	// ErrTokenUsed: another key has used the token.
	ErrTokenUsed = errors.New("the join token has been used by another gateway: make one with \"hansa jointokens create\" for each")
	// ErrNameTaken: another gateway of the organization has the name.
	ErrNameTaken = errors.New("another gateway has this name: choose another with --name")
	// ErrRevoked: the gateway has been revoked or removed.
	ErrRevoked = errors.New("the gateway has been revoked or removed")
)

// EnrolmentStore is what enrolment needs of the record.
type EnrolmentStore interface {
	// Redeem uses up a token for a gateway and enters the gateway, both in one step, and returns where it belongs. The
	// same token, name and public key again is answered the same and changes nothing. SecretHash and publicKey are
	// SHA-256 in lower-case hexadecimal; comparing the first takes constant time. The errors are ErrTokenInvalid,
	// ErrTokenUsed and ErrNameTaken.
	Redeem(ctx context.Context, tokenID, secretHash, gateway, publicKey string) (organization, group string, err error)
	// Renewable returns ErrRevoked if the gateway is not in the record with this public key, or is revoked.
	Renewable(ctx context.Context, gateway identity.Node, publicKey string) error
}

// Authority issues certificates: *identity.Control.
type Authority interface {
	Issue(n identity.Node, public crypto.PublicKey) ([][]byte, error)
	Trust() *keys.Trust
}

// GroupKeySource has the keys of gateway groups.
type GroupKeySource interface {
	// GroupKeys returns the keys of a group, the one in use first.
	GroupKeys(ctx context.Context, organization, group string) (keys.GroupKeys, error)
}

// Enrolment is the part of a Server that lets gateways join and renew.
type Enrolment struct {
	Authority Authority
	Store     EnrolmentStore
	// Keys, if set, are handed to the gateways of each group, sealed to each gateway's own key.
	Keys GroupKeySource
}

type enrolmentServer struct {
	linkv1.UnimplementedEnrolmentServer
	Enrolment
	log *slog.Logger
}

func newEnrolmentServer(e Enrolment, log *slog.Logger) (*enrolmentServer, error) {
	if e.Authority == nil || e.Store == nil {
		return nil, errors.New("enrolment needs Authority and Store")
	}
	return &enrolmentServer{Enrolment: e, log: log}, nil
}

// Trust hands out the trust document in force.
func (s *enrolmentServer) Trust(context.Context, *linkv1.TrustRequest) (*linkv1.TrustResponse, error) {
	return &linkv1.TrustResponse{Trust: s.Authority.Trust().Encoded()}, nil
}

// Join trades a token for a certificate.
func (s *enrolmentServer) Join(ctx context.Context, r *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	public, hash, err := identity.ParseRequest(r.GetCertificateRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	trust := s.Authority.Trust()
	// A name that cannot be certified must not use up the token.
	if err := identity.Gateway(trust.Cluster, "o", "g", r.GetName()).Validate(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	organization, groupName, err := s.Store.Redeem(ctx, r.GetTokenId(), identity.HashSecret(secret.New(r.GetSecret())), r.GetName(), hash)
	if err != nil {
		return nil, s.answer(ctx, "join", r.GetName(), err)
	}
	node := identity.Gateway(trust.Cluster, organization, groupName, r.GetName())
	chain, err := s.Authority.Issue(node, public)
	if err != nil {
		return nil, s.answer(ctx, "join", node.String(), err)
	}
	group, err := s.groupKeys(ctx, node, public)
	if err != nil {
		return nil, s.answer(ctx, "join", node.String(), err)
	}
	s.log.InfoContext(ctx, "gateway joined", "node", node.String(), "token", r.GetTokenId())
	return &linkv1.JoinResponse{Chain: chain, Trust: trust.Encoded(), GroupKeys: group}, nil
}

// Renew issues a new certificate to the caller for its key.
func (s *enrolmentServer) Renew(ctx context.Context, _ *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	p, ok := provenPeer(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	if err := s.Store.Renewable(ctx, p.Node, p.PublicKey); err != nil {
		return nil, s.answer(ctx, "renew", p.Node.String(), err)
	}
	chain, err := s.Authority.Issue(p.Node, p.Key)
	if err != nil {
		return nil, s.answer(ctx, "renew", p.Node.String(), err)
	}
	group, err := s.groupKeys(ctx, p.Node, p.Key)
	if err != nil {
		return nil, s.answer(ctx, "renew", p.Node.String(), err)
	}
	s.log.InfoContext(ctx, "certificate renewed", "node", p.Node.String(), "expired", p.Expired)
	return &linkv1.RenewResponse{Chain: chain, Trust: s.Authority.Trust().Encoded(), GroupKeys: group}, nil
}

// GroupKeys hands out the keys of the caller's group.
func (s *enrolmentServer) GroupKeys(ctx context.Context, _ *linkv1.GroupKeysRequest) (*linkv1.GroupKeysResponse, error) {
	p, ok := provenPeer(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	if err := s.Store.Renewable(ctx, p.Node, p.PublicKey); err != nil {
		return nil, s.answer(ctx, "group keys", p.Node.String(), err)
	}
	group, err := s.groupKeys(ctx, p.Node, p.Key)
	if err != nil {
		return nil, s.answer(ctx, "group keys", p.Node.String(), err)
	}
	return &linkv1.GroupKeysResponse{GroupKeys: group}, nil
}

// groupKeys returns the keys of a gateway's group, sealed to the gateway.
func (s *enrolmentServer) groupKeys(ctx context.Context, n identity.Node, public crypto.PublicKey) ([]byte, error) {
	if s.Keys == nil {
		return nil, nil
	}
	group, err := s.Keys.GroupKeys(ctx, n.Organization, n.Group)
	if err != nil {
		return nil, err
	}
	return identity.SealGroupKeys(n, public, group)
}

// enrolmentCodes is how the errors travel.
func enrolmentCodes() map[codes.Code]error {
	return map[codes.Code]error{
		codes.Unauthenticated:    ErrTokenInvalid,
		codes.FailedPrecondition: ErrTokenUsed,
		codes.AlreadyExists:      ErrNameTaken,
		codes.PermissionDenied:   ErrRevoked,
	}
}

// answer makes a status of an error. Causes that are not for the caller go to the log.
func (s *enrolmentServer) answer(ctx context.Context, what, who string, err error) error {
	for code, known := range enrolmentCodes() {
		if errors.Is(err, known) {
			s.log.WarnContext(ctx, "enrolment refused", "call", what, "gateway", who, "err", err)
			return status.Error(code, known.Error())
		}
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.log.ErrorContext(ctx, "enrolment", "call", what, "gateway", who, "err", err)
	return status.Error(codes.Unavailable, "the control node cannot do this now; try again")
}

// known gives back the error that answer sent.
func known(err error) error {
	if e, ok := enrolmentCodes()[status.Code(err)]; ok {
		return e
	}
	return err
}

// EnrolOptions are for Enrol.
type EnrolOptions struct {
	// Token is the right to join.
	Token identity.JoinToken
	// Name is the name that the gateway wants.
	Name string
	// Member takes the certificate. Required.
	Member *identity.Member
	// Addresses are tried before those of the token.
	Addresses []string
	// Dial and Timeouts are as in Options.
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	Timeouts Timeouts
	// Logger is required.
	Logger *slog.Logger
	// Now is the clock for certificates. nil: time.Now.
	Now func() time.Time
}

// Enrol makes the member a node of the token's cluster. It tries all addresses again and again, with growing pauses,
// until one answers or the context ends. Its end is nil; ErrTokenInvalid, ErrTokenUsed, ErrNameTaken or an answer that
// the name is bad; keys.ErrForeignRoot if all addresses belong to other clusters; or the context's error with what was
// last in the way.
func Enrol(ctx context.Context, o EnrolOptions) error {
	o.Addresses = append(append([]string(nil), o.Addresses...), o.Token.Addresses...)
	if len(o.Addresses) == 0 {
		return fmt.Errorf("enrol with %s: it names no control node: give its address with --control", o.Token)
	}
	o.Timeouts = o.Timeouts.withDefaults()
	if o.Dial == nil {
		o.Dial = (&Dialer{Proxy: ProxyFromEnvironment(), Timeout: o.Timeouts.Dial}).Dial
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var last error
	for pause := o.Timeouts.BackoffMin; ; pause = min(pause*8/5, o.Timeouts.BackoffMax) {
		foreign := 0
		for _, address := range o.Addresses {
			err := o.join(ctx, address)
			if err == nil {
				return nil
			}
			if ctx.Err() == nil || last == nil {
				last = err // that the context ended in the midst of an attempt tells nothing
			}
			if errors.Is(err, keys.ErrForeignRoot) {
				foreign++
			}
			if permanent(err) || foreign == len(o.Addresses) {
				return fmt.Errorf("enrol with %s at %s: %w", o.Token, address, err)
			}
			o.Logger.WarnContext(ctx, "control node does not let the gateway join yet", "address", address, "err", err)
		}
		if !sleep(ctx, pause*4/5+rand.N(pause*2/5+1)) {
			return fmt.Errorf("enrol with %s: %w; last: %w", o.Token, context.Cause(ctx), last)
		}
	}
}

func permanent(err error) bool {
	return errors.Is(err, ErrTokenInvalid) || errors.Is(err, ErrTokenUsed) || errors.Is(err, ErrNameTaken) ||
		status.Code(err) == codes.InvalidArgument
}

// join tries one address: first who is there, then the secret.
func (o *EnrolOptions) join(ctx context.Context, address string) error {
	trust, err := fetchTrust(ctx, []string{address}, o.Token.Root, o.Dial, o.Timeouts)
	if err != nil {
		return err
	}
	if trust.Cluster != o.Token.Cluster {
		return fmt.Errorf("the node is of cluster %q, the token of %q: %w", trust.Cluster, o.Token.Cluster, keys.ErrForeignRoot)
	}
	verifier, err := identity.NewVerifier(trust)
	if err != nil {
		return err
	}
	request, err := o.Member.Request()
	if err != nil {
		return err
	}
	creds := &clientCredentials{identity: guest{verify: verifier.Verify}, role: identity.RoleControl, timeout: o.Timeouts.Handshake, now: o.Now}
	var answer *linkv1.JoinResponse
	err = once(ctx, []string{address}, o.Dial, o.Timeouts, creds, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		answer, err = linkv1.NewEnrolmentClient(cc).Join(ctx, &linkv1.JoinRequest{
			TokenId: o.Token.ID, Secret: o.Token.Secret.Reveal(), Name: o.Name, CertificateRequest: request,
		})
		return known(err)
	})
	if err != nil {
		return err
	}
	if err := o.Member.Join(o.Token.Root, answer.GetTrust(), answer.GetChain()); err != nil {
		return err
	}
	return takeGroupKeys(o.Member, answer.GetGroupKeys())
}

// takeGroupKeys keeps the keys that came with an answer, if any did.
func takeGroupKeys(m *identity.Member, sealed []byte) error {
	if len(sealed) == 0 {
		return nil
	}
	return m.AcceptGroupKeys(sealed)
}

// fetchTrust asks a node for the trust document over a connection whose other end is not checked. The document proves
// itself: the root with the pinned fingerprint must have signed it. Nothing secret is sent.
func fetchTrust(ctx context.Context, addresses []string, pinned keys.Fingerprint, dial func(context.Context, string) (net.Conn, error), t Timeouts) (*keys.Trust, error) {
	anyone := guest{verify: func([]*x509.Certificate, time.Time) (identity.Peer, error) {
		return identity.Peer{Node: identity.Node{Role: identity.RoleControl}}, nil
	}}
	creds := &clientCredentials{identity: anyone, role: identity.RoleControl, timeout: t.Handshake, now: time.Now}
	var answer *linkv1.TrustResponse
	err := once(ctx, addresses, dial, t, creds, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		answer, err = linkv1.NewEnrolmentClient(cc).Trust(ctx, &linkv1.TrustRequest{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch trust document: %w", err)
	}
	return keys.ParseTrust(answer.GetTrust(), pinned)
}

// guest is an identity without a certificate.
type guest struct {
	verify func(chain []*x509.Certificate, now time.Time) (identity.Peer, error)
}

// Certificate returns identity.ErrNotEnrolled.
func (guest) Certificate() (*tls.Certificate, error) { return nil, identity.ErrNotEnrolled }

// Verify checks the other end.
func (g guest) Verify(chain []*x509.Certificate, now time.Time) (identity.Peer, error) {
	return g.verify(chain, now)
}

// once makes a connection for one call.
func once(ctx context.Context, addresses []string, dial func(context.Context, string) (net.Conn, error), t Timeouts,
	creds *clientCredentials, call func(context.Context, *grpc.ClientConn) error,
) error {
	cc, err := grpc.NewClient(staticTarget, append(commonOptions(addresses, dial, t),
		grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*keys.MaxTrustBytes)))...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*t.Dial+t.Handshake+2*t.KeepaliveTimeout, errors.New("no answer in time"))
	defer cancel()
	return errors.Join(call(ctx, cc), cc.Close())
}
