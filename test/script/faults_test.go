package script

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// faulty is a program that is a backend of bad manners. It takes the name of its ready file and does what the last segment of
// the path says: garbage, reset, large, hold (no answer), held (200 while one is held, 404 otherwise); to all else it answers
// 200.
func faulty() {
	var held atomic.Int32
	// The script ends it with an interrupt, which a program that a shell has put into the background would ignore.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() {
		<-interrupted
		os.Exit(0)
	}()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		err = os.WriteFile(os.Args[1], fmt.Appendf(nil, `{"addresses":{"http":%q}}`, l.Addr()), 0o600)
	}
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			go misbehave(c, &held) // ends with the connection, or with the program
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func misbehave(c net.Conn, held *atomic.Int32) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	switch req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:] {
	case "garbage":
		_, _ = io.WriteString(c, "nonsense\r\n\r\n")
	case "reset":
	case "large":
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n12345678901234567890")
	case "hold":
		held.Add(1)
		defer held.Add(-1)
		_, _ = io.Copy(io.Discard, r)
	case "held":
		status := "404 Not Found"
		if held.Load() > 0 {
			status = "200 OK"
		}
		_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
	default:
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return // an answer before the end of a bad body would be passed on
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// bytesOf makes bytes of words: each is what is between the quotes of a Go string, or N*WORD for N times that.
func bytesOf(ts *testscript.TestScript, words []string) string {
	var b strings.Builder
	for _, word := range words {
		times := 1
		if n, rest, ok := strings.Cut(word, "*"); ok {
			if count, err := strconv.Atoi(n); err == nil {
				times, word = count, rest
			}
		}
		text, err := strconv.Unquote(`"` + word + `"`)
		ts.Check(err)
		b.WriteString(strings.Repeat(text, times))
	}
	return b.String()
}

// dial opens a connection that ends with the script and sends bytes.
func dial(ts *testscript.TestScript, address, text string) net.Conn {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", address)
	ts.Check(err)
	ts.Defer(func() { _ = c.Close() })
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, _ = io.WriteString(c, text) // who refuses need not read it all
	return c
}

func raw(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 4, "raw STATUS CODE ADDRESS BYTES...")
	c := dial(ts, args[2], bytesOf(ts, args[3:]))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		ts.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	answered(ts, resp, args[0], args[1])
}

// answered fails the script unless a response has the status and the code of a refusal.
func answered(ts *testscript.TestScript, resp *http.Response, status, code string) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var refusal struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	_ = json.Unmarshal(body, &refusal) // the codes tell
	if strconv.Itoa(resp.StatusCode) != status || refusal.Code != code || refusal.Detail == "" {
		ts.Fatalf("answered with %s: %s (%v)", resp.Status, body, err)
	}
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 1, "hold ADDRESS BYTES...")
	dial(ts, args[0], bytesOf(ts, args[1:]))
}

func leave(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 2, "leave ADDRESS BYTES...")
	c := dial(ts, args[0], bytesOf(ts, args[1:]))
	ts.Check(c.Close())
}

func logged(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 2, "logged CODE FILE")
	path, want := ts.MkAbs(args[1]), fmt.Appendf(nil, `"code":%q`, args[0])
	poll(ts, func() error {
		b, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(b, want) {
			err = fmt.Errorf("%s does not have %s", args[1], want)
		}
		return err
	})
}

func contentOf(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 2, "content VAR FILE")
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func certificate(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 2, "certificate NAME HOST...")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: args[0]}, DNSNames: args[1:],
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

func overTLS(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg, args, 5, "tls STATUS CODE ADDRESS SERVERNAME URL [CERTIFICATE]")
	config := &tls.Config{InsecureSkipVerify: true, ServerName: args[3]} // a test on loopback
	if len(args) > 5 {
		pair, err := tls.LoadX509KeyPair(ts.MkAbs(args[5]+".crt"), ts.MkAbs(args[5]+".key"))
		ts.Check(err)
		// Certificates would only be shown to a server that names their CA.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{
		TLSClientConfig: config, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, args[2])
		},
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, args[4], nil)
	ts.Check(err)
	resp, err := transport.RoundTrip(req)
	ts.Check(err)
	defer resp.Body.Close()
	answered(ts, resp, args[0], args[1])
}
