package h2

import "time"

// Budget bounds the frames of a peer that cost work and carry nothing: what floods are made of (CVE-2019-9511 to 9518,
// CVE-2023-44487, CVE-2024-27316). Such frames cost; time and useful work earn. The zero value is not ready: Reset it.
type Budget struct {
	left int
	at   time.Duration
}

// The budget of one connection.
const (
	budgetMost      = 4000 // also what it begins with
	budgetPerSecond = 200

	// CostPing is that of a PING or SETTINGS frame, which must be answered.
	CostPing = 4
	// CostSetting is that of each setting in a SETTINGS frame, besides: one may concern every stream.
	CostSetting = 1
	// CostReset is that of a request that is cancelled before it was answered, and of one that is malformed.
	CostReset = 20
	// CostEmpty is that of a frame that changes nothing: PRIORITY, DATA or CONTINUATION without content, DATA of a stream that
	// was reset, WINDOW_UPDATE, and types that are not known.
	CostEmpty = 1

	// EarnRequest is what a request that was served to its end earns.
	EarnRequest = 10
	// EarnData is what a frame with data earns, in either direction: it needs windows to be updated.
	EarnData = 4
)

// Reset gives the whole budget. now is on the clock that Spend is told.
func (b *Budget) Reset(now time.Duration) { b.left, b.at = budgetMost, now }

// Spend takes n from the budget. It returns false if that is used up.
func (b *Budget) Spend(n int, now time.Duration) bool {
	if b.left -= n; b.left >= 0 {
		return true
	}
	if d := now - b.at; d > 0 {
		b.left = min(b.left+int(d.Milliseconds()*budgetPerSecond/1000), budgetMost)
		b.at = now
	}
	return b.left >= 0
}

// Earn gives n back.
func (b *Budget) Earn(n int) { b.left = min(b.left+n, budgetMost) }
