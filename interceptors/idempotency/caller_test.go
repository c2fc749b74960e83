package idempotency

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

func TestCallerFromCertificate(t *testing.T) {
	spiffe, err := url.Parse("spiffe://acme/shop")
	if err != nil {
		t.Fatal(err)
	}
	verified := func(cert *x509.Certificate) credentials.AuthInfo {
		return credentials.TLSInfo{State: tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{cert},
			VerifiedChains:   [][]*x509.Certificate{{cert}},
		}}
	}
	name := pkix.Name{CommonName: "shop"}
	for what, c := range map[string]struct {
		info credentials.AuthInfo
		want string
	}{
		"a URI":          {verified(&x509.Certificate{URIs: []*url.URL{spiffe}, DNSNames: []string{"shop.acme"}, Subject: name}), "uri:spiffe://acme/shop"},
		"a DNS name":     {verified(&x509.Certificate{DNSNames: []string{"shop.acme"}, Subject: name}), "dns:shop.acme"},
		"a common name":  {verified(&x509.Certificate{Subject: name}), "cn:shop"},
		"no name":        {verified(&x509.Certificate{}), ""},
		"not verified":   {credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: name}}}}, ""},
		"an empty chain": {credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{}}}}, ""},
		"no TLS":         {nil, ""},
	} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: c.info})
		if got := CallerFromCertificate()(ctx, "/a.B/C"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	if got := CallerFromCertificate()(t.Context(), "/a.B/C"); got != "" {
		t.Errorf("no peer: %q, want nobody", got)
	}
}

func TestCallerFromMetadata(t *testing.T) {
	caller := CallerFromMetadata("X-User")
	for _, c := range []struct {
		values []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"alice"}, "alice"},
		{[]string{"alice", "bob"}, ""},
		{[]string{strings.Repeat("a", maxCaller)}, strings.Repeat("a", maxCaller)},
		{[]string{strings.Repeat("a", maxCaller+1)}, ""},
	} {
		if got := caller(incoming(t, metadata.MD{"x-user": c.values}), "/a.B/C"); got != c.want {
			t.Errorf("%q: %q, want %q", c.values, got, c.want)
		}
	}
	if got := caller(context.Background(), "/a.B/C"); got != "" {
		t.Errorf("outside of gRPC: %q, want nobody", got)
	}
}
