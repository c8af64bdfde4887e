package h2

import "hansa.dev/hansa/internal/exchange"

// entry is a field of a table.
type entry struct{ name, value string }

// staticTable is RFC 7541, appendix A. Its first entry has the number 1.
var staticTable = [...]entry{
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

// The numbers of pseudo-header fields in the static table; those of :method, :scheme and :status with one of the values.
const (
	indexAuthority  = 1
	indexGET        = 2
	indexPOST       = 3
	indexPath       = 4
	indexHTTP       = 6
	indexHTTPS      = 7
	index200        = 8
	index204        = 9
	index206        = 10
	index304        = 11
	index400        = 12
	index404        = 13
	index500        = 14
	firstNamed      = 15 // the first that is no pseudo-header field
	tableEntryExtra = 32 // what an entry counts besides its text (RFC 7541, section 4.1)
)

// staticIndex tells under which number the name of a well-known field stands in the static table; 0: it does not.
var staticIndex = func() (t [64]uint8) {
	for i, e := range staticTable[firstNamed-1:] {
		if id := exchange.IDOf([]byte(e.name)); id != exchange.IDOther {
			t[id] = uint8(i + firstNamed)
		}
	}
	return t
}()

// dynamicTable is the table that a peer's encoder fills (RFC 7541, section 2.3.2). Its text lies in one piece of memory,
// which holds twice as much as the table may, so that it is moved together once in a while.
type dynamicTable struct {
	text    []byte
	entries []tableEntry // the last one is the newest
	size    int          // as the RFC counts
	max     int          // as the encoder has chosen
}

type tableEntry struct {
	at          uint32
	name, value uint32 // their lengths
}

func (e tableEntry) size() int { return int(e.name+e.value) + tableEntryExtra }

// at returns the entry with that number, of which 0 is the newest.
func (t *dynamicTable) at(i int) (name, value []byte) {
	e := t.entries[len(t.entries)-1-i]
	text := t.text[e.at:]
	return text[:e.name], text[e.name : e.name+e.value]
}

// resize changes how much may be kept.
func (t *dynamicTable) resize(most int) {
	t.max = most
	t.evict(0)
}

// evict makes room for n.
func (t *dynamicTable) evict(n int) {
	gone := 0
	for gone < len(t.entries) && t.size+n > t.max {
		t.size -= t.entries[gone].size()
		gone++
	}
	if gone > 0 {
		t.entries = t.entries[:copy(t.entries, t.entries[gone:])]
	}
}

// add adds an entry. Name and value must not lie in the table.
func (t *dynamicTable) add(name, value []byte) {
	n := len(name) + len(value)
	t.evict(n + tableEntryExtra)
	if n+tableEntryExtra > t.max {
		return // an attempt to add one that is too large empties the table
	}
	if len(t.text)+n > 2*t.max {
		t.compact()
	}
	t.entries = append(t.entries, tableEntry{uint32(len(t.text)), uint32(len(name)), uint32(len(value))})
	t.text = append(append(t.text, name...), value...)
	t.size += n + tableEntryExtra
}

// compact moves what is left to the begin of the memory.
func (t *dynamicTable) compact() {
	to := 0
	for i := range t.entries {
		e := &t.entries[i]
		n := copy(t.text[to:], t.text[e.at:e.at+e.name+e.value])
		e.at = uint32(to)
		to += n
	}
	t.text = t.text[:to]
}
