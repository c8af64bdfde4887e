package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// smallAnswer is the length of what the backend answers to everything but /bytes/.
const smallAnswer = 103

// verify makes one request of the case and looks whether the answer is what the backend answers, so that nobody is fast in
// doing something else.
func verify(ctx context.Context, c proxyCase, at place) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.name == caseGRPC {
		return verifyGRPC(ctx, at.h2)
	}
	url, path, key, want := "http://"+at.addr, plainPath, "", smallAnswer
	method, body := http.MethodGet, []byte(nil)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	switch c.name {
	case caseKeyQuota:
		path, key = keyedPath, keyValue(keyQuotaKeys-1)
	case caseTLS, caseHandshake, caseResume:
		url = "https://" + at.tls
	case caseH2:
		url, protocols = "http://"+at.h2, new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
	case caseH2TLS:
		url = "https://" + at.tls
		protocols.SetHTTP2(true)
	case case64k:
		path, want = path64k, 64<<10
	case case1m:
		path, want = path1m, 1<<20
	case casePost16k:
		path, method, body = postPath, http.MethodPost, bytes.Repeat([]byte("x"), 16<<10)
	case caseRoutes1, caseRoutes1k, caseRoutes100k:
		path = routePath(routeAPIs*routeOperations - 1)
	}
	req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Host = proxyHost
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: clientTLS()}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || len(got) != want) {
		err = fmt.Errorf("%s %s is answered with status %d and %d bytes, want 200 and %d", method, url+path, res.StatusCode, len(got), want)
	}
	if h2 := slices.Contains([]string{caseH2, caseH2TLS}, c.name); err == nil && h2 != (res.ProtoMajor == 2) {
		err = fmt.Errorf("%s %s is answered with %s", method, url+path, res.Proto)
	}
	return err
}

// clientTLS trusts whoever answers: the certificate is signed by itself, and nothing leaves the machine.
func clientTLS() *tls.Config {
	return &tls.Config{ServerName: proxyHost, InsecureSkipVerify: true} // see above
}

func verifyGRPC(ctx context.Context, addr string) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(proxyHost))
	if err != nil {
		return err
	}
	defer conn.Close()
	in, out := wrapperspb.Bytes([]byte("hello")), new(wrapperspb.BytesValue)
	if err := conn.Invoke(ctx, grpcPath, in, out); err != nil {
		return err
	}
	if !bytes.Equal(in.Value, out.Value) {
		return errors.New("the echo is not what was sent")
	}
	return nil
}
