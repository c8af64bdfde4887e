package accesslog

import (
	"strconv"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Place is where and from what configuration a request was answered.
type Place struct {
	Site       string
	Epoch, Seq uint64
}

// Append appends the line of a finished exchange, with its newline.
func Append(dst []byte, x *exchange.Exchange, at Place) []byte {
	dst = append(dst, `{"time":"`...)
	dst = appendTime(dst, x.Start)
	dst = append(dst, `","requestId":"`...)
	dst = append(dst, x.ID[:]...)
	dst = append(dst, '"')
	if r := x.Route; r != nil {
		dst = appendText(dst, `,"organization":`, r.Organization)
		dst = appendText(dst, `,"environment":`, r.Environment)
		dst = appendText(dst, `,"api":`, r.API)
		dst = append(dst, `,"revision":`...)
		dst = strconv.AppendUint(dst, r.Revision, 10)
		dst = appendText(dst, `,"operation":`, r.Operation)
	} else {
		dst = append(dst, `,"organization":"","environment":"","api":"","revision":0,"operation":""`...)
	}
	dst = appendText(dst, `,"application":`, x.Consumer.Application)
	dst = appendText(dst, `,"product":`, x.Consumer.Product)
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
	dst = appendText(dst, `,"site":`, at.Site)
	dst = append(dst, `,"epoch":`...)
	dst = strconv.AppendUint(dst, at.Epoch, 10)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, at.Seq, 10)
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
	year, month, day := t.UTC().Date()
	hour, minute, second := t.UTC().Clock()
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
