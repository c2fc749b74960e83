package interceptors

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/grpc/test/bufconn"

	"github.com/spillway-go/spillway/limiter"
)

// tenantValues are values of the key, hostile ones too, and the name that they give.
var tenantValues = []struct {
	values []string
	want   string
}{
	{nil, ""},
	{[]string{}, ""},
	{[]string{""}, ""},
	{[]string{"acme"}, "acme"},
	{[]string{"Acme Inc. #1"}, "Acme Inc. #1"},
	{[]string{"acme", "acme"}, ""},
	{[]string{"acme", ""}, ""},
	{[]string{"acme,evil"}, ""},
	{[]string{","}, ""},
	{make([]string, 10_000), ""},
	{[]string{strings.Repeat("a", maxTenantName)}, strings.Repeat("a", maxTenantName)},
	{[]string{strings.Repeat("a", maxTenantName+1)}, ""},
}

func TestTenantFromMetadata(t *testing.T) {
	f := TenantFromMetadata("X-Tenant")
	for _, c := range append(tenantValues, tenantValues[0]) {
		md := metadata.MD{"other": {"acme"}}
		if c.values != nil {
			md["x-tenant"] = c.values
		}
		if got, want := f(metadata.NewIncomingContext(t.Context(), md), "/a.B/C"), limiter.TenantNamed(c.want); got != want {
			t.Errorf("%.20q: tenant %x, want %x, that of %.20q", c.values, got, want, c.want)
		}
	}
	if got := f(t.Context(), "/a.B/C"); got != 0 {
		t.Errorf("tenant %x without metadata, want nobody", got)
	}
	// A comma is part of a binary name.
	ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"id-bin": {"\x00,\xff"}})
	if got, want := TenantFromMetadata("ID-bin")(ctx, "/a.B/C"), limiter.TenantNamed("\x00,\xff"); got != want {
		t.Errorf("a binary name: tenant %x, want %x", got, want)
	}
}

func TestTenantFromMetadataPanicsOnABadKey(t *testing.T) {
	for _, key := range []string{"", " ", "x tenant", "x-tenant ", "x:tenant", ":authority", "grpc-tenant", "GRPC-Timeout", "müller", "a\x00", "\xff"} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), fmt.Sprintf("TenantFromMetadata(%q); want a key", key)) {
					t.Errorf("%q: panic with %v, want an error that names the function and the key", key, err)
				}
			}()
			TenantFromMetadata(key)
		}()
	}
}

// tenants notes who a function says the callers are.
type tenants struct {
	mu   sync.Mutex
	seen []limiter.Tenant
}

// of returns a function that notes what another says.
func (n *tenants) of(f TenantFunc) TenantFunc {
	return func(ctx context.Context, method string) limiter.Tenant {
		tenant := f(ctx, method)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.seen = append(n.seen, tenant)
		return tenant
	}
}

// take returns what was noted, and forgets it.
func (n *tenants) take() []limiter.Tenant {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := n.seen
	n.seen = nil
	return seen
}

// wantTwice fails unless the tap and the interceptor both took the last caller for the tenant of that name, or for nobody.
func (n *tenants) wantTwice(t *testing.T, what, name string) {
	t.Helper()
	want := limiter.TenantNamed(name)
	if seen := n.take(); !slices.Equal(seen, []limiter.Tenant{want, want}) {
		t.Errorf("%s: tenants %x, want twice %x, that of %.20q", what, seen, want, name)
	}
}

// The tap and the interceptors see the same tenant, whatever a caller sends over a real connection.
func TestTenantFromMetadataOverAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n tenants
		p := connect(t, echo(0), limit(1, WithTenant(n.of(TenantFromMetadata("x-tenant")))))
		for _, c := range tenantValues {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"x-tenant": c.values})
			if _, err := p.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				t.Errorf("%d values like %.20q: %v", len(c.values), c.values, err)
			}
			n.wantTwice(t, fmt.Sprintf("%d values like %.20q", len(c.values), c.values), c.want)
		}
		// Of a stream it is asked when the stream opens, not for each message.
		if err := askStream(metadata.AppendToOutgoingContext(t.Context(), "X-Tenant", "acme"), p, 3); err != nil {
			t.Error(err)
		}
		n.wantTwice(t, "a stream", "acme")
	})
}

func TestTenantFromMethodOverAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n tenants
		p := connect(t, echo(0), limit(1, WithTenant(n.of(TenantFromMethod()))))
		if _, err := p.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Error(err)
		}
		n.wantTwice(t, "a call", "/grpc.testing.TestService/UnaryCall")
		if err := askStream(t.Context(), p, 3); err != nil {
			t.Error(err)
		}
		n.wantTwice(t, "a stream", "/grpc.testing.TestService/FullDuplexCall")
	})
}

// Of two customers one asks for four times what the server can do. The other, whose load fits, does not notice.
func TestTenantsShareAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, warmUp, length = 5, 2 * time.Second, 3 * time.Second // 500 requests a second
		work := func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			time.Sleep(10 * time.Millisecond)
			return &testpb.SimpleResponse{}, nil
		}
		p := connect(t, &service{unary: work}, limit(workers, WithTenant(TenantFromMetadata("x-customer"))))
		start := time.Now()
		// ask sends requests and returns how many of those that count were sent, and how many served.
		ask := func(customer string, every time.Duration) (asked, served int) {
			var mu sync.Mutex
			var all sync.WaitGroup
			for ; time.Since(start) < warmUp+length; time.Sleep(every) {
				counts := time.Since(start) >= warmUp
				all.Go(func() {
					ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-customer", customer), time.Second/2)
					defer cancel()
					_, err := p.UnaryCall(ctx, &testpb.SimpleRequest{})
					mu.Lock()
					defer mu.Unlock()
					if counts {
						asked++
						if err == nil {
							served++
						}
					}
				})
			}
			all.Wait()
			return asked, served
		}
		greedy := make(chan int)
		go func() {
			_, served := ask("greedy", 501*time.Microsecond)
			greedy <- served
		}()
		asked, served := ask("modest", 7*time.Millisecond)
		rest := <-greedy
		t.Logf("%d of %d served, and %d of the greedy one", served, asked, rest)
		if served < asked*98/100 {
			t.Errorf("%d of %d served, want 98%%", served, asked)
		}
		if most := workers * 300; served+rest < most*8/10 {
			t.Errorf("%d served in all, want eight tenths of %d", served+rest, most)
		}
	})
}

func TestTenantFromPeerOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := newAuthority(t), newAuthority(t)
		spiffe, mail := parseURL(t, "spiffe://acme.example/ns/shop/sa/web"), parseURL(t, "mailto:ops@acme.example")
		var n tenants
		config := &tls.Config{
			Certificates: []tls.Certificate{ours.sign(t, x509.Certificate{DNSNames: []string{"server.example"}})},
			ClientCAs:    ours.pool(),
		}
		addr := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 1234}
		all := x509.Certificate{
			Subject:  pkix.Name{CommonName: "common"},
			DNSNames: []string{"web.acme.example", "www.acme.example"},
			URIs:     []*url.URL{spiffe, mail},
		}
		without := func(change func(*x509.Certificate)) x509.Certificate {
			c := all
			change(&c)
			return c
		}
		for _, c := range []struct {
			what   string
			auth   tls.ClientAuthType
			signer *authority // nil: no certificate is shown
			cert   x509.Certificate
			addr   net.Addr
			want   string
		}{
			{"the first URI", tls.VerifyClientCertIfGiven, ours, all, addr, spiffe.String()},
			{"another URI", tls.RequireAndVerifyClientCert, ours, x509.Certificate{URIs: []*url.URL{mail}}, addr, mail.String()},
			{"the first DNS name", tls.VerifyClientCertIfGiven, ours, without(func(c *x509.Certificate) { c.URIs = nil }), addr, "web.acme.example"},
			{"the common name", tls.VerifyClientCertIfGiven, ours, x509.Certificate{Subject: all.Subject}, addr, "common"},
			{"no name", tls.VerifyClientCertIfGiven, ours, x509.Certificate{}, addr, "192.0.2.7"},
			{"a stranger's certificate", tls.RequireAnyClientCert, theirs, all, addr, "192.0.2.7"},
			{"a certificate that is not looked at", tls.RequestClientCert, ours, all, addr, "192.0.2.7"},
			{"no certificate", tls.VerifyClientCertIfGiven, nil, all, addr, "192.0.2.7"},
			{"no certificate and no address", tls.VerifyClientCertIfGiven, nil, all, nil, ""},
		} {
			server := config.Clone()
			server.ClientAuth = c.auth
			client := &tls.Config{ServerName: "server.example", RootCAs: ours.pool()}
			if c.signer != nil {
				shown := c.signer.sign(t, c.cert)
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil } // asked for or not
			}
			callOverTLS(t, c.what, server, client, c.addr, limit(1, WithTenant(n.of(TenantFromPeer()))))
			n.wantTwice(t, c.what, c.want)
		}
	})
}

// callOverTLS makes one call from the address given, or from a connection that has none, to a server of its own.
func callOverTLS(t *testing.T, what string, server, client *tls.Config, from net.Addr, opts []Option) {
	t.Helper()
	s := newServer(t, opts...)
	srv := grpc.NewServer(append(s.ServerOptions(), grpc.Creds(credentials.NewTLS(server)), grpc.WaitForHandlers(true))...)
	testpb.RegisterTestServiceServer(srv, echo(0))
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(fromListener{listener, from}) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(credentials.NewTLS(client)), grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	_ = conn.Close()
	srv.Stop()
	if err := <-served; err != nil {
		t.Errorf("%s: Serve: %v", what, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("%s: Close: %v", what, err)
	}
}

// fromListener gives the other end of its connections an address, if it has one to give.
type fromListener struct {
	*bufconn.Listener
	addr net.Addr
}

func (l fromListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.addr == nil {
		return conn, err
	}
	return fromConn{conn, l.addr}, nil
}

type fromConn struct {
	net.Conn
	addr net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.addr }

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{cert: &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}}
	signed := a.sign(t, *a.cert)
	a.cert, a.key = signed.Leaf, signed.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign returns a certificate for a day with a key of its own. The first one signs itself.
func (a *authority) sign(t *testing.T, c x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(1)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if signer == nil {
		parent, signer = &c, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, &c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func parseURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// stringAddr is an address as grpc.Server.ServeHTTP has it.
type stringAddr string

func (stringAddr) Network() string  { return "tcp" }
func (a stringAddr) String() string { return string(a) }

func TestTenantFromAddress(t *testing.T) {
	f := TenantFromPeer()
	for _, c := range []struct {
		addr net.Addr
		want string
	}{
		{nil, ""},
		{(*net.TCPAddr)(nil), ""},
		{&net.TCPAddr{}, ""},
		{&net.TCPAddr{IP: net.IP{1, 2, 3}}, ""},
		{&net.TCPAddr{IP: net.IP{192, 0, 2, 1}, Port: 1}, "192.0.2.1"},
		{&net.TCPAddr{IP: net.IP{192, 0, 2, 1}, Port: 2}, "192.0.2.1"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1")}, "192.0.2.1"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, "2001:db8::1"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8:1111:2222:3333:4444:5555:6666")}, "2001:db8:1111:2222:3333:4444:5555:6666"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1%eth0"},
		{&net.UnixAddr{Name: "@", Net: "unix"}, ""},
		{&net.UnixAddr{Name: "/run/a:b", Net: "unix"}, ""},
		{stringAddr("192.0.2.1:1234"), "192.0.2.1"},
		{stringAddr("[2001:db8::1]:1234"), "2001:db8::1"},
		{stringAddr("localhost:1234"), ""},
		{stringAddr("bufconn"), ""},
		{stringAddr(""), ""},
	} {
		if got, want := f(peer.NewContext(t.Context(), &peer.Peer{Addr: c.addr}), "/a.B/C"), limiter.TenantNamed(c.want); got != want {
			t.Errorf("%v: tenant %x, want %x, that of %q", c.addr, got, want, c.want)
		}
	}
	if got := f(t.Context(), "/a.B/C"); got != 0 {
		t.Errorf("tenant %x without a peer, want nobody", got)
	}
}

// peerWith returns the context of a request from a peer that TLS has verified.
func peerWith(ctx context.Context, cert *x509.Certificate) context.Context {
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IP{192, 0, 2, 1}}, AuthInfo: credentials.TLSInfo{State: state}})
}

// More URIs than are remembered, from many at once: each is its own tenant, and no other's.
func TestTenantFromManyURIs(t *testing.T) {
	f := TenantFromPeer()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 2000 {
				for _, name := range []string{
					fmt.Sprintf("spiffe://acme.example/web/%d", i), fmt.Sprintf("https://%d.acme.example", i), fmt.Sprintf("urn:acme:%d", i),
					fmt.Sprintf("https://user@acme.example/?q=%d", i), "spiffe://acme.example/a%2Fb", "spiffe://acme.example/a/b",
				} {
					cert := &x509.Certificate{URIs: []*url.URL{parseURL(t, name)}}
					for range 2 {
						if got, want := f(peerWith(t.Context(), cert), "/a.B/C"), limiter.TenantNamed(name); got != want {
							t.Errorf("%s: tenant %x, want %x", name, got, want)
							return
						}
					}
				}
			}
		})
	}
	all.Wait()
}

// They run on the goroutine that reads the connection, in the tap.
func TestTenantFuncsAllocateNothing(t *testing.T) {
	cert := func(c x509.Certificate) context.Context { return peerWith(t.Context(), &c) }
	at := func(addr net.Addr) context.Context { return peer.NewContext(t.Context(), &peer.Peer{Addr: addr}) }
	name := strings.Repeat("n", 100)
	for what, c := range map[string]struct {
		f   TenantFunc
		ctx context.Context
	}{
		"metadata":  {TenantFromMetadata("x-tenant"), metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-tenant", name, "user-agent", "test"))},
		"URI":       {TenantFromPeer(), cert(x509.Certificate{URIs: []*url.URL{parseURL(t, "spiffe://acme.example/"+name)}})},
		"DNS name":  {TenantFromPeer(), cert(x509.Certificate{DNSNames: []string{name}})},
		"CN":        {TenantFromPeer(), cert(x509.Certificate{Subject: pkix.Name{CommonName: name}})},
		"IPv4":      {TenantFromPeer(), at(&net.TCPAddr{IP: net.ParseIP("192.0.2.123"), Port: 65000})},
		"IPv6":      {TenantFromPeer(), at(&net.TCPAddr{IP: net.ParseIP("2001:db8::1234:5678"), Port: 65000})},
		"ServeHTTP": {TenantFromPeer(), at(stringAddr("192.0.2.123:65000"))},
		"bufconn":   {TenantFromPeer(), at(stringAddr("bufconn"))},
		"method":    {TenantFromMethod(), t.Context()},
	} {
		if n := testing.AllocsPerRun(100, func() { c.f(c.ctx, "/acme.v1.Shop/Pay") }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", what, n)
		}
	}
}

// A megabyte of values is not copied.
func TestHostileTenantsAllocateLittle(t *testing.T) {
	for what, values := range map[string][]string{
		"10,000 values":     make([]string, 10_000),
		"one of a megabyte": {strings.Repeat("a", 1<<20)},
	} {
		s := newServer(t, WithTenant(TenantFromMetadata("x-tenant")))
		md := metadata.MD{"x-tenant": values}
		ctx := metadata.NewIncomingContext(t.Context(), md)
		info := &tap.Info{FullMethodName: "/a.B/C", Header: md}
		const times, most = 100, 1 << 10
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			if _, err := s.tap(ctx, info); err != nil {
				t.Fatal(err)
			}
			s.policy.Load().request(ctx, "/a.B/C", limiter.Critical, nil, nil)
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / times; each > most {
			t.Errorf("%s: %d bytes allocated, want at most %d", what, each, most)
		}
	}
}

// Whatever the key and the values are: a key is taken in any case of its letters or not at all, one value of some length
// is a name, and all else is nobody.
func FuzzTenantFromMetadata(f *testing.F) {
	f.Add("X-Tenant", "acme", "", uint8(0))
	f.Add("x-tenant-bin", "\x00,\xff", "", uint8(0))
	f.Add("x-tenant", "a,b", "c", uint8(1))
	f.Add("grpc-tenant", "acme", "acme", uint8(200))
	f.Add(":path", strings.Repeat("a", 257), "", uint8(0))
	take := func(key string) (taken TenantFunc, err any) {
		defer func() { err = recover() }()
		return TenantFromMetadata(key), nil
	}
	f.Fuzz(func(t *testing.T, key, first, second string, more uint8) {
		read, err := take(key)
		if other, otherErr := take(strings.ToUpper(strings.ToLower(key))); (other == nil) != (read == nil) && isASCII(key) {
			t.Fatalf("%q: %v, but in upper case %v", key, err, otherErr)
		}
		if read == nil {
			if _, ok := err.(error); !ok {
				t.Fatalf("%q: panic with %v, want an error", key, err)
			}
			return
		}
		values := []string{first}
		for range more {
			values = append(values, second)
		}
		sent := metadata.New(nil)
		sent.Append(key, values...)
		want := limiter.TenantNamed(first)
		if more > 0 || len(first) > maxTenantName || strings.Contains(first, ",") && !strings.HasSuffix(strings.ToLower(key), "-bin") {
			want = 0
		}
		if got := read(metadata.NewIncomingContext(t.Context(), sent), "/a.B/C"); got != want {
			t.Errorf("%q of %.40q: tenant %x, want %x", key, values, got, want)
		}
		if got := read(metadata.NewIncomingContext(t.Context(), metadata.Pairs(key+"x", first)), "/a.B/C"); got != 0 {
			t.Errorf("%q: tenant %x from another key", key, got)
		}
	})
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0 }

func BenchmarkTenantFromPeer(b *testing.B) {
	for name, ctx := range map[string]context.Context{
		"URI":  peerWith(b.Context(), &x509.Certificate{URIs: []*url.URL{parseURL(b, "spiffe://acme.example/ns/shop/sa/web")}}),
		"IPv4": peer.NewContext(b.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP("192.0.2.123"), Port: 65000}}),
	} {
		b.Run(name, func(b *testing.B) {
			f := TenantFromPeer()
			for b.Loop() {
				f(ctx, "/acme.v1.Shop/Pay")
			}
		})
	}
}

// A gateway authenticates callers and says whom each request is for. Where it says nothing, such as for calls from
// inside, the caller's certificate does.
func ExampleWithTenant() {
	fromGateway, fromPeer := TenantFromMetadata("x-customer"), TenantFromPeer()
	protection, err := NewServer(WithTenant(func(ctx context.Context, method string) limiter.Tenant {
		if customer := fromGateway(ctx, method); customer != 0 {
			return customer
		}
		return fromPeer(ctx, method)
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protection.Close()
	srv := grpc.NewServer(protection.ServerOptions()...)
	defer srv.Stop()

	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-customer", "acme"))
	fmt.Println(fromGateway(ctx, "/acme.v1.Shop/Pay") == limiter.TenantNamed("acme"))
	// Output: true
}
