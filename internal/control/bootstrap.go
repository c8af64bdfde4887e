package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/x/token"
)

// system is the caller of what Hansa does by itself.
func system(name string) caller {
	return caller{principal: "system:" + name, roles: []v1.RoleBinding{{Organization: allOrganizations, Role: Admin.String()}}}
}

// firstAdmin is the principal that the first start makes.
const firstAdmin = "admin"

// Bootstrap makes a new record usable: the organization "default", and the principal "admin" with one token, which is
// written to tokenFile (mode 0600). It does nothing to a record that has a principal.
//
// The file is written before the record is changed, and a token that is there already is taken: a start that was cut
// off between the two is repeated with the same token.
func (s *Server) Bootstrap(ctx context.Context, tokenFile string) error {
	if hasPrincipal(s.store.State()) {
		return nil
	}
	value, err := firstToken(tokenFile)
	if err != nil {
		return err
	}
	who := system("bootstrap")
	_, err = s.commit(ctx, change{who: who, info: store.Info{Principal: who.principal, Reason: "first start"}, build: func(state store.State) (edit, error) {
		if hasPrincipal(state) {
			return edit{}, fmt.Errorf("another control node has made the first principal meanwhile: the token in %q is not known to the record, delete the file", tokenFile)
		}
		return edit{puts: []*v1.Object{
			{
				APIVersion: v1.APIVersion, Kind: v1.KindOrganization, Metadata: v1.Metadata{Name: v1.DefaultOrganization},
				Spec: &v1.OrganizationSpec{Description: "Resources that name no organization belong here."},
			},
			{
				APIVersion: v1.APIVersion, Kind: v1.KindPrincipal, Metadata: v1.Metadata{Name: firstAdmin},
				Spec: &v1.PrincipalSpec{Roles: who.roles, Tokens: []v1.TokenHash{hashOf(value, time.Time{})}},
			},
		}}, nil
	}})
	if err != nil {
		return fmt.Errorf("make the first principal: %w", err)
	}
	s.log.InfoContext(ctx, "first start: principal admin made", "token_file", tokenFile)
	return nil
}

func hasPrincipal(state store.State) bool {
	for range state.List(v1.KindPrincipal, "", "") {
		return true
	}
	return false
}

// firstToken returns the token in file, which it makes if there is none.
func firstToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		value := strings.TrimSpace(string(b))
		if err := token.Check(TokenPrefix, value); err != nil {
			return "", fmt.Errorf("token file %q is there already, but what it holds %w: delete it", file, err)
		}
		return value, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read token file %q: %w", file, err)
	}
	value, _ := newToken(time.Time{})
	if err := writeSecret(file, value+"\n"); err != nil {
		return "", fmt.Errorf("write token file %q: %w", file, err)
	}
	return value, nil
}

// writeSecret writes a file that only its owner can read, so that it is whole and on the disk or not there at all.
func writeSecret(file, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".token-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.WriteString(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
