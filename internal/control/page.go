package control

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"

	"hansa.dev/hansa/internal/control/problem"
)

// The sizes of pages.
const (
	defaultPage = 500
	maxPage     = 5000
	// maxPageBytes ends a page early: a page holds at most so much of the JSON of its items, and one item more.
	maxPageBytes = 8 << 20
)

// page is the part of a list that a request asks for.
type page struct {
	limit int
	after string // name or other mark of the last item of the page before; "" for the first page
}

// parsePage reads limit and continue. list identifies what is listed: a continue token of another list is refused.
func parsePage(q url.Values, list string) (page, error) {
	p := page{limit: defaultPage}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxPage {
			return page{}, problem.New(problem.BadRequest, "limit %q must be a number from 1 to %d", s, maxPage)
		}
		p.limit = n
	}
	if s := q.Get("continue"); s != "" {
		after, err := decodeContinue(s, list)
		if err != nil {
			return page{}, problem.New(problem.BadRequest, "the continue token %v: list again without it", err)
		}
		p.after = after
	}
	return p, nil
}

// continueToken is the content of a continue token. It grants nothing: the request that carries it is decided upon
// like any other.
type continueToken struct {
	List  string `json:"l"`
	After string `json:"a"`
}

func encodeContinue(list, after string) string {
	b, err := json.Marshal(continueToken{list, after})
	if err != nil {
		panic(err) // two strings
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeContinue(s, list string) (after string, err error) {
	if len(s) > 2048 {
		return "", errors.New("is too long")
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", errors.New("is damaged")
	}
	var t continueToken
	if json.Unmarshal(b, &t) != nil || t.After == "" {
		return "", errors.New("is damaged")
	}
	if t.List != list {
		return "", errors.New("belongs to another list")
	}
	return t.After, nil
}
