package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
)

func (q *request) text(status int, body string) error {
	q.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	q.w.WriteHeader(status)
	_, _ = q.w.Write([]byte(body)) // the caller may be gone; there is nobody left to tell
	return nil
}

// livez tells that the process answers, and nothing more: restarting it would help nothing else.
func (s *Server) livez(q *request) error { return q.text(http.StatusOK, "ok\n") }

// readyz tells whether this node can take changes: 200 if all checks pass, 503 if not. With the parameter verbose it
// names each check.
func (s *Server) readyz(q *request) error {
	_, verbose := q.r.URL.Query()["verbose"]
	ctx, cancel := context.WithTimeout(q.ctx(), time.Second)
	defer cancel()
	status, text := http.StatusOK, ""
	for _, c := range s.opts.Checks {
		line := "[+] " + c.Name + " ok\n"
		if err := c.Run(ctx); err != nil {
			status = http.StatusServiceUnavailable
			line = fmt.Sprintf("[-] %s: %v\n", c.Name, err)
		}
		text += line
	}
	switch {
	case verbose:
	case status == http.StatusOK:
		text = "ok\n"
	default:
		text = "not ready\n"
	}
	return q.text(status, text)
}

func (s *Server) exposeMetrics(q *request) error {
	promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(q.w, q.r)
	return nil
}

func (s *Server) status(q *request) error {
	state := s.store.State()
	out := v1.ControlStatus{
		Cluster: s.store.Cluster(), Epoch: state.Version().Epoch, Seq: state.Version().Seq, Version: s.opts.Version,
		Principal: q.who.principal, Roles: q.who.roles, Organizations: []v1.OrganizationStatus{},
	}
	for o := range state.List(v1.KindOrganization, "", "") {
		if !q.who.mayRead(o.Key()) {
			continue
		}
		name := o.Metadata.Name
		org := v1.OrganizationStatus{Name: name, Resources: map[v1.Kind]int{}}
		for _, info := range v1.Kinds() {
			if info.Global || !q.who.mayRead(v1.Key{Organization: name, Kind: info.Kind}) {
				continue
			}
			n := 0
			for range state.List(info.Kind, name, "") {
				n++
			}
			if n > 0 {
				org.Resources[info.Kind] = n
			}
		}
		for _, g := range s.gatewayStatus(state, name) {
			switch {
			case g.Revoked:
			case g.Link == linkUp:
				org.GatewaysUp++
			default:
				org.GatewaysDown++
			}
		}
		out.Organizations = append(out.Organizations, org)
	}
	return q.reply(http.StatusOK, out)
}

func (s *Server) schema(q *request) error {
	info, err := resource.KindOf(q.r.PathValue("kind"))
	if err != nil {
		return problem.New(problem.NotFound, "%v", err)
	}
	schema, err := resource.Schema(info)
	if err != nil {
		return fmt.Errorf("schema of %s: %w", info.Kind, err)
	}
	return q.reply(http.StatusOK, schema)
}

// audit lists change sets, newest first. Within one organization only the changes of that organization are shown, and
// change sets without any are left out.
func (s *Server) audit(q *request) error {
	list := "audit/" + q.organization
	p, err := parsePage(q.r.URL.Query(), list)
	if err != nil {
		return err
	}
	below := uint64(0)
	if p.after != "" {
		if below, err = strconv.ParseUint(p.after, 10, 64); err != nil {
			return problem.New(problem.BadRequest, "the continue token is damaged: list again without it")
		}
	}
	out := v1.AuditList{Items: []v1.AuditRecord{}}
	for rec, err := range s.store.Audit(q.ctx(), below) {
		if errors.Is(err, store.ErrCompacted) {
			break // older records are gone, which is the end of the list
		}
		if err != nil {
			return fmt.Errorf("read audit records: %w", err)
		}
		item, ok := auditRecord(rec, q.organization)
		if !ok {
			continue
		}
		if len(out.Items) == p.limit {
			out.Continue = encodeContinue(list, strconv.FormatUint(out.Items[p.limit-1].Seq, 10))
			break
		}
		out.Items = append(out.Items, item)
	}
	return q.reply(http.StatusOK, out)
}

func auditRecord(rec store.AuditRecord, organization string) (v1.AuditRecord, bool) {
	out := v1.AuditRecord{
		Epoch: rec.Version.Epoch, Seq: rec.Version.Seq, At: rec.Info.At, Principal: rec.Info.Principal, Reason: rec.Info.Reason,
		RequestID: rec.Info.RequestID, Changes: []v1.AuditEntry{}, Omitted: rec.Omitted, Credentials: rec.Credentials,
	}
	for _, c := range rec.Changes {
		if organization == allOrganizations || c.Key.Organization == organization {
			out.Changes = append(out.Changes, v1.AuditEntry{Kind: c.Key.Kind, Name: c.Key.Name, Organization: c.Key.Organization, Action: c.Action})
		}
	}
	if organization == allOrganizations {
		return out, true
	}
	out.Omitted = 0 // of the whole change set, which may have reached other organizations
	if rec.Info.Organization != organization && len(out.Changes) == 0 {
		return out, false
	}
	return out, true
}

// backup streams the whole record. If it breaks off, so does the connection: a client never takes half for whole.
func (s *Server) backup(q *request) error {
	q.w.Header().Set("Content-Type", "application/octet-stream")
	q.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", "hansa-"+s.store.Cluster()+".backup"))
	if err := s.store.Backup(q.ctx(), q.w); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	s.log.InfoContext(q.ctx(), "backup made", "principal", q.who.principal, "request_id", q.id)
	return nil
}
