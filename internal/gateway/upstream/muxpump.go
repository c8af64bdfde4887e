package upstream

import (
	"sync/atomic"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
)

// muxPump passes the body of a request on, from a goroutine of its own, while the call waits for the response.
type muxPump struct {
	pumping bool          // and not waited for yet
	done    chan struct{} // one message for each start
	over    atomic.Bool
	broken  atomic.Pointer[exchange.Fault] // what was wrong with the body
	out     []byte
}

func (m *muxCall) start() {
	m.pumping = true
	m.over.Store(false)
	go m.run()
}

func (m *muxCall) run() {
	f := errInternal // unless it comes to its end
	defer func() {
		if f != nil {
			m.broken.Store(f)
			m.stream.Interrupt() // the call need not wait for a response any more
		}
		m.over.Store(true)
		m.done <- struct{}{}
	}()
	defer m.call.backend.registry.opts.Guard.Catch("passing on the body of a request", nil)
	f = m.relay()
}

// running tells whether the body is still being passed on.
func (m *muxCall) running() bool { return m.pumping && !m.over.Load() }

// settle is called when the response is complete. If the request is not, the backend does not want the rest.
func (m *muxCall) settle() {
	if m.pumping && m.over.Load() {
		<-m.done
		m.pumping = false
	}
}

// halt ends the goroutine, whatever it waits for.
func (m *muxCall) halt() {
	if !m.pumping {
		return
	}
	if !m.over.Load() {
		m.call.down.StopBody()
		m.stream.Abort()
	}
	<-m.done
	m.pumping = false
}

// relay passes the body on. It returns what is wrong with the body; that the backend takes no more of it is not an error: it
// may answer all the same.
func (m *muxCall) relay() *exchange.Fault {
	c := m.call
	body := m.requestBody()
	most := c.x.Route.MaxRequestBytes
	var total int64
	for {
		chunk, err := body.Next()
		if err != nil {
			return faultOf(err, errClientGone)
		}
		if total += int64(len(chunk.Data)); most > 0 && total > most {
			return errTooLarge
		}
		var trailers *exchange.Head
		if chunk.End {
			trailers = body.Trailers()
		}
		if len(chunk.Data) > 0 || chunk.End && trailers == nil {
			if err := m.stream.Send(chunk.Data, chunk.End && trailers == nil, c.settings.idle); err != nil {
				return nil
			}
		}
		if trailers != nil {
			m.out = h2.AppendHead(m.out[:0], trailers, h1.NotInTrailers)
			_ = m.stream.SendTrailers(m.out) // if it fails so does the response
		}
		if chunk.End {
			return nil
		}
	}
}
