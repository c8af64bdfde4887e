package accesslog

import (
	"strconv"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Place is where and from what configuration a request was answered. Use [NewPlace].
type Place struct{ members string }

// NewPlace returns the place of a gateway of the site that serves the configuration (epoch, seq).
func NewPlace(site string, epoch, seq uint64) Place {
	b := appendText(nil, `,"site":`, site)
	b = append(b, `,"epoch":`...)
	b = strconv.AppendUint(b, epoch, 10)
	b = append(b, `,"seq":`...)
	return Place{members: string(strconv.AppendUint(b, seq, 10))}
}

// FlowMembers returns what the lines of all requests of a flow have in common, for its LogMembers.
func FlowMembers(f *exchange.Flow) string {
	b := appendText(nil, `,"organization":`, f.Organization)
	b = appendText(b, `,"environment":`, f.Environment)
	b = appendText(b, `,"api":`, f.API)
	b = append(b, `,"revision":`...)
	return string(strconv.AppendUint(b, f.Revision, 10))
}

// ConsumerMembers returns what the lines of all requests of a consumer have in common, for its LogMembers.
func ConsumerMembers(application, product string) string {
	return string(appendText(appendText(nil, `,"application":`, application), `,"product":`, product))
}

// What stands in the place of such members if there are none.
const (
	noFlow     = `,"organization":"","environment":"","api":"","revision":0`
	noConsumer = `,"application":"","product":""`
	noPlace    = `,"site":"","epoch":0,"seq":0`
)

// Append appends the line of a finished exchange, with its newline.
func Append(dst []byte, x *exchange.Exchange, at Place) []byte {
	dst = append(dst, `{"time":"`...)
	dst = appendTime(dst, x.Start)
	dst = append(dst, `","requestId":"`...)
	dst = append(dst, x.ID[:]...)
	dst = append(dst, '"')
	members, operation := noFlow, ""
	if r := x.Route; r != nil {
		members, operation = r.LogMembers, r.Operation
	}
	dst = append(dst, members...)
	dst = appendText(dst, `,"operation":`, operation)
	if members = x.Consumer.LogMembers; members == "" {
		members = noConsumer
	}
	dst = append(dst, members...)
	dst = appendText(dst, `,"method":`, x.Method)
	dst = appendText(dst, `,"host":`, x.Host)
	dst = appendText(dst, `,"path":`, x.Path)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(x.Status), 10)
	dst = append(dst, `,"code":"`...)
	dst = append(dst, x.Code.String()...) // a constant without anything to escape
	dst = append(dst, '"')
	dst = appendText(dst, `,"backend":`, x.Backend)
	dst = appendText(dst, `,"endpoint":`, x.Endpoint)
	if members = at.members; members == "" {
		members = noPlace
	}
	dst = append(dst, members...)
	dst = append(dst, `,"durationMs":`...)
	dst = appendMillis(dst, x.Duration)
	dst = append(dst, `,"upstreamMs":`...)
	dst = appendMillis(dst, x.Upstream)
	dst = append(dst, `,"bytesIn":`...)
	dst = strconv.AppendInt(dst, x.BytesIn, 10)
	dst = append(dst, `,"bytesOut":`...)
	dst = strconv.AppendInt(dst, x.BytesOut, 10)
	dst = append(dst, `,"protocol":"`...)
	dst = append(dst, x.Protocol.String()...)
	dst = append(dst, '"')
	dst = appendText(dst, `,"clientIp":`, x.ClientIP)
	if x.TLS != nil {
		dst = append(dst, `,"tls":"`...)
		dst = append(dst, x.TLS.VersionName()...)
		dst = append(dst, '"')
	}
	if c := x.ClientCert; c != nil {
		dst = appendText(dst, `,"clientSubject":`, c.Subject)
		dst = append(dst, `,"clientFingerprint":"`...)
		dst = append(dst, c.Fingerprint...)
		dst = append(dst, '"')
	}
	return append(dst, "}\n"...)
}

// appendText appends a name as it stands and a string as JSON.
func appendText[S ~string | ~[]byte](dst []byte, name string, value S) []byte {
	return exchange.AppendJSONString(append(dst, name...), value)
}

// appendTime appends t in UTC with milliseconds, as RFC 3339 writes it. time.AppendFormat takes four times as long.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, year/100)
	dst = appendDigits(dst, year%100)
	dst = appendDigits(append(dst, '-'), int(month))
	dst = appendDigits(append(dst, '-'), day)
	dst = appendDigits(append(dst, 'T'), hour)
	dst = appendDigits(append(dst, ':'), minute)
	dst = appendDigits(append(dst, ':'), second)
	milli := t.Nanosecond() / 1e6
	return append(dst, '.', byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10), 'Z')
}

// appendDigits appends a number below 100.
func appendDigits(dst []byte, n int) []byte { return append(dst, byte('0'+n/10%10), byte('0'+n%10)) }

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(dst []byte, d time.Duration) []byte {
	micro := max(d, 0).Microseconds()
	dst = strconv.AppendInt(dst, micro/1000, 10)
	return append(dst, '.', byte('0'+micro/100%10), byte('0'+micro/10%10), byte('0'+micro%10))
}
