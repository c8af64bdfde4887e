// Package sample is what "hansa dev" shows: the resources of a small organization with two APIs, and the backend
// behind them. It stands for a user's own files and service, so it uses nothing that a user could not.
package sample

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed resources.yaml
var resources string

// Resources returns the sample organization as a YAML document, with backend (host:port) as the address of its
// backends.
func Resources(backend string) string {
	return strings.ReplaceAll(resources, "BACKEND_ADDRESS", backend)
}

// item is one article of the catalogue.
type item struct {
	ID    string  `json:"id"`
	Name  string  `json:"name"`
	Price float64 `json:"price"`
}

// order is one order of an item.
type order struct {
	ID       string `json:"id"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Placed   string `json:"placed"`
}

// backend answers for both sample APIs from memory.
type backend struct {
	now func() time.Time

	mu     sync.Mutex // guards orders
	orders []order
}

// maxOrders bounds what the sample keeps; the oldest order makes room.
const maxOrders = 1000

// Backend returns the service behind the sample APIs: a catalogue of items under /items and orders under /orders.
func Backend(now func() time.Time) http.Handler {
	b := &backend{now: now}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, catalogue()) })
	mux.HandleFunc("GET /items/{id}", b.item)
	mux.HandleFunc("GET /orders", b.list)
	mux.HandleFunc("POST /orders", b.place)
	mux.HandleFunc("GET /orders/{id}", b.order)
	return mux
}

func catalogue() []item {
	return []item{
		{ID: "1", Name: "oak cog", Price: 1200},
		{ID: "2", Name: "barrel of herring", Price: 14.5},
		{ID: "3", Name: "bolt of Flemish cloth", Price: 32},
		{ID: "4", Name: "sack of Lüneburg salt", Price: 5.25},
	}
}

func (b *backend) item(w http.ResponseWriter, r *http.Request) {
	for _, it := range catalogue() {
		if it.ID == r.PathValue("id") {
			reply(w, http.StatusOK, it)
			return
		}
	}
	reply(w, http.StatusNotFound, map[string]string{"error": "no item " + strconv.Quote(r.PathValue("id"))})
}

func (b *backend) list(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	out := append([]order{}, b.orders...)
	b.mu.Unlock()
	reply(w, http.StatusOK, out)
}

func (b *backend) place(w http.ResponseWriter, r *http.Request) {
	var in order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&in); err != nil || in.Item == "" || in.Quantity < 1 {
		reply(w, http.StatusBadRequest, map[string]string{"error": `want {"item": "1", "quantity": 2}`})
		return
	}
	b.mu.Lock()
	last := 0
	if n := len(b.orders); n > 0 {
		last, _ = strconv.Atoi(b.orders[n-1].ID)
	}
	in.ID, in.Placed = strconv.Itoa(last+1), b.now().UTC().Format(time.RFC3339)
	b.orders = append(b.orders, in)
	if len(b.orders) > maxOrders {
		b.orders = b.orders[1:]
	}
	b.mu.Unlock()
	w.Header().Set("Location", "/orders/"+in.ID)
	reply(w, http.StatusCreated, in)
}

func (b *backend) order(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.orders {
		if o.ID == r.PathValue("id") {
			reply(w, http.StatusOK, o)
			return
		}
	}
	reply(w, http.StatusNotFound, map[string]string{"error": "no order " + strconv.Quote(r.PathValue("id"))})
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, fmt.Sprintf("encode answer: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // a client that left is no fault of the sample
}
