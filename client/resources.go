package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	v1 "hansa.dev/hansa/api/v1"
)

// ContentTypeYAML is the media type of one or more YAML documents; JSON documents may stand among them.
const ContentTypeYAML = "application/yaml"

// ApplyOptions tune a change.
type ApplyOptions struct {
	// Organization is where resources belong that name none. Default: "default".
	Organization string
	// Wait waits until the gateways run the change, at most so long. 0: does not wait.
	Wait v1.Duration
	// Reason is kept in the audit record.
	Reason string
}

func (o ApplyOptions) query() url.Values {
	q := url.Values{}
	if o.Organization != "" {
		q.Set("organization", o.Organization)
	}
	if o.Wait > 0 {
		q.Set("wait", o.Wait.String())
	}
	if o.Reason != "" {
		q.Set("reason", o.Reason)
	}
	return q
}

// Apply makes the resources of a stream of YAML or JSON documents so, all of them or none.
func (c *Client) Apply(ctx context.Context, documents io.Reader, o ApplyOptions) (v1.ApplyResult, error) {
	return c.change(ctx, "apply", documents, o)
}

// Plan tells what Apply would change, with both sides of every change.
func (c *Client) Plan(ctx context.Context, documents io.Reader, o ApplyOptions) (v1.ApplyResult, error) {
	return c.change(ctx, "plan", documents, o)
}

// DeleteAll deletes the resources that a stream of documents names, all of them or none. Only kind and metadata
// count; what does not exist is passed over.
func (c *Client) DeleteAll(ctx context.Context, documents io.Reader, o ApplyOptions) (v1.ApplyResult, error) {
	return c.change(ctx, "delete", documents, o)
}

func (c *Client) change(ctx context.Context, verb string, documents io.Reader, o ApplyOptions) (v1.ApplyResult, error) {
	var out v1.ApplyResult
	err := c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", verb}, query: o.query(), body: documents, ctype: ContentTypeYAML, large: true}, &out)
	return out, err
}

// path returns the path of a kind, or of one resource if name is not empty.
func path(kind v1.Kind, organization, name string) ([]string, error) {
	info, ok := v1.Lookup(kind)
	if !ok {
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
	p := []string{"api", "v1"}
	if !info.Global {
		p = append(p, "organizations", organization)
	}
	p = append(p, info.Plural)
	if name != "" {
		p = append(p, name)
	}
	return p, nil
}

// Get returns one resource. Gateways are read with Gateway.
func (c *Client) Get(ctx context.Context, key v1.Key) (*v1.Object, error) {
	if key.Name == "" {
		return nil, errors.New("get: the name is empty")
	}
	p, err := path(key.Kind, key.Organization, key.Name)
	if err != nil {
		return nil, err
	}
	out := new(v1.Object)
	if err := c.into(ctx, call{method: http.MethodGet, path: p}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Put makes one resource so. If its metadata.seq is not 0, the resource must be at that change set (conflict).
func (c *Client) Put(ctx context.Context, o *v1.Object, opts ApplyOptions) (v1.ApplyResult, error) {
	var out v1.ApplyResult
	p, err := path(o.Kind, o.Metadata.Organization, o.Metadata.Name)
	if err != nil {
		return out, err
	}
	body, err := jsonBody(o)
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodPut, path: p, query: opts.query(), body: body, ctype: "application/json"}, &out)
	return out, err
}

// Delete deletes one resource. If seq is not 0, the resource must be at that change set (precondition-failed).
func (c *Client) Delete(ctx context.Context, key v1.Key, seq uint64, opts ApplyOptions) (v1.ApplyResult, error) {
	var out v1.ApplyResult
	if key.Name == "" {
		return out, errors.New("delete: the name is empty")
	}
	p, err := path(key.Kind, key.Organization, key.Name)
	if err != nil {
		return out, err
	}
	h := http.Header{}
	if seq != 0 {
		h.Set("If-Match", `"`+strconv.FormatUint(seq, 10)+`"`)
	}
	err = c.into(ctx, call{method: http.MethodDelete, path: p, query: opts.query(), header: h}, &out)
	return out, err
}

// ListOptions select resources.
type ListOptions struct {
	// Selector selects by label: "tier=gold,!legacy".
	Selector string
	// Limit is the size of a page. Default: the server's, 500.
	Limit int
	// Continue asks for the page after the one that returned it.
	Continue string
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	if o.Selector != "" {
		q.Set("selector", o.Selector)
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Continue != "" {
		q.Set("continue", o.Continue)
	}
	return q
}

// List returns a page of the resources of a kind. Gateways are not listed here but by Gateways.
func (c *Client) List(ctx context.Context, kind v1.Kind, organization string, o ListOptions) (v1.List, error) {
	var out v1.List
	p, err := path(kind, organization, "")
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodGet, path: p, query: o.query()}, &out)
	return out, err
}

// All yields every resource of a kind, page by page. It ends after the first error.
func (c *Client) All(ctx context.Context, kind v1.Kind, organization string, o ListOptions) iter.Seq2[*v1.Object, error] {
	return func(yield func(*v1.Object, error) bool) {
		for {
			page, err := c.List(ctx, kind, organization, o)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if o.Continue = page.Continue; o.Continue == "" {
				return
			}
		}
	}
}

// Watch yields what changes among the resources of a kind after the version that since names: "EPOCH.SEQ" of a list
// or of an event, or "" for the present. It ends when the context does or after the first error; an *Error with
// the code expired means that the caller must list again.
func (c *Client) Watch(ctx context.Context, kind v1.Kind, organization, since string) iter.Seq2[v1.WatchEvent, error] {
	return func(yield func(v1.WatchEvent, error) bool) {
		p, err := path(kind, organization, "")
		if err != nil {
			yield(v1.WatchEvent{}, err)
			return
		}
		q := url.Values{"watch": {"true"}}
		if since != "" {
			q.Set("since", since)
		}
		res, err := c.do(ctx, call{method: http.MethodGet, path: p, query: q})
		if err != nil {
			yield(v1.WatchEvent{}, err)
			return
		}
		defer res.Body.Close()
		for dec := json.NewDecoder(res.Body); ; {
			var ev v1.WatchEvent
			if err := dec.Decode(&ev); err != nil {
				yield(v1.WatchEvent{}, &unreachableError{server: c.base.Redacted(), err: fmt.Errorf("the watch broke off: %w", err)})
				return
			}
			if ev.Type == v1.WatchError && ev.Problem != nil {
				yield(ev, &Error{Problem: *ev.Problem})
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
	}
}
