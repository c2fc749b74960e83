package interceptors

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/spillway-go/spillway/limiter"
)

// TenantFunc says on whose behalf a request is, or 0 for nobody's; see [limiter.TenantNamed]. fullMethod is like
// "/package.Service/Method". What [CriticalityFunc] says about being quick, and
// about what the tap knows, holds here too.
//
// [TenantFromPeer], [TenantFromMetadata] and [TenantFromMethod] are ready-made. They can be called from a function
// that knows better for some requests.
type TenantFunc func(ctx context.Context, fullMethod string) limiter.Tenant

// TenantFromMetadata returns a TenantFunc for servers whose callers come with their name in the metadata of that
// key, such as "x-customer-id". Upper case in the key is lower case on the wire. It panics where no metadata can have
// the key.
//
// It is to be trusted as far as whoever writes the key: a gateway that authenticates callers and replaces what they
// sent may name them; callers who may write it themselves are as many tenants as they like.
//
// Nobody is whoever sends no value, an empty one, one of more than 256 bytes, or more than one: a proxy that adds its
// own to a caller's has not said which of them is right. A comma makes two values of one, as gRPC has it, unless the
// key ends in "-bin".
func TenantFromMetadata(key string) TenantFunc {
	lower := strings.ToLower(key)
	if !isMetadataKey(lower) {
		panic(fmt.Errorf("interceptors: TenantFromMetadata(%q); want a key of letters, digits and _-., which does not begin with grpc-", key))
	}
	from, binary := new(incoming), strings.HasSuffix(lower, "-bin")
	return func(ctx context.Context, _ string) limiter.Tenant {
		return limiter.TenantNamed(tenantIn(from.metadata(ctx)[lower], binary))
	}
}

// isMetadataKey reports whether a key of lower case is one that gRPC hands over. What begins with grpc- is gRPC's own.
func isMetadataKey(key string) bool {
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	return key != "" && !strings.HasPrefix(key, "grpc-")
}

// maxTenantName is as much as anybody's name needs, and little enough to look at.
const maxTenantName = 256

// tenantIn returns the name that the values of a key give, or "".
func tenantIn(values []string, binary bool) string {
	if len(values) != 1 || len(values[0]) > maxTenantName || !binary && strings.IndexByte(values[0], ',') >= 0 {
		return ""
	}
	return values[0]
}

// TenantFromPeer returns a TenantFunc for servers that are called directly. Whom TLS has verified is known by its
// certificate: by the first URI in it, such as a SPIFFE ID, or else the first DNS name, or else the common name.
// Anybody else is known by its IP address, and who has none, such as a caller on a Unix socket, is nobody.
//
// A verified name can be trusted as far as whoever signs certificates. An address cannot be made up, since TCP answers
// to it, but all callers behind one proxy or NAT share it, and an IPv6 caller often has 2^64 of them. Verified is what
// crypto/tls has verified (tls.VerifyClientCertIfGiven and tls.RequireAndVerifyClientCert): servers that do it
// themselves, in tls.Config.VerifyPeerCertificate, like those of go-spiffe, leave no mark of it, and want a function
// of their own.
func TenantFromPeer() TenantFunc {
	uris := new(uriTenants)
	return func(ctx context.Context, _ string) limiter.Tenant {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return 0
		}
		switch cert := verified(p.AuthInfo); {
		case cert == nil:
		case len(cert.URIs) > 0:
			return uris.tenant(cert.URIs[0])
		case len(cert.DNSNames) > 0:
			return limiter.TenantNamed(cert.DNSNames[0])
		case cert.Subject.CommonName != "":
			return limiter.TenantNamed(cert.Subject.CommonName)
		}
		return tenantAt(p.Addr)
	}
}

// verified returns the certificate of a peer that TLS has verified, or nil.
func verified(info credentials.AuthInfo) *x509.Certificate {
	t, ok := info.(credentials.TLSInfo)
	if !ok || len(t.State.VerifiedChains) == 0 || len(t.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return t.State.VerifiedChains[0][0]
}

// tenantAt returns the tenant of an IP address, whatever the port, or 0. IPv4 inside of IPv6 is IPv4.
func tenantAt(addr net.Addr) limiter.Tenant {
	var ip netip.Addr
	switch a := addr.(type) {
	case nil:
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	default: // grpc.Server.ServeHTTP has a string
		if s := a.String(); strings.IndexByte(s, ':') >= 0 { // else an error would be put together each time
			port, _ := netip.ParseAddrPort(s)
			ip = port.Addr()
		}
	}
	if !ip.IsValid() {
		return 0
	}
	var text [64]byte
	return limiter.TenantNamed(string(ip.Unmap().AppendTo(text[:0])))
}

// uriTenants remembers tenants by URI: to write one out takes an allocation, and the same come again and again. Where
// more come than there is room for, the last of a slot stays. The zero value is ready for use.
type uriTenants struct {
	known [256]atomic.Pointer[uriTenant]
}

type uriTenant struct {
	uri    url.URL
	tenant limiter.Tenant
}

func (u *uriTenants) tenant(uri *url.URL) limiter.Tenant {
	at := limiter.TenantNamed(uri.Host) ^ limiter.TenantNamed(uri.Path) ^ limiter.TenantNamed(uri.Opaque) // good hashes
	slot := &u.known[at%limiter.Tenant(len(u.known))]
	if known := slot.Load(); known != nil && known.uri == *uri {
		return known.tenant
	}
	known := &uriTenant{*uri, limiter.TenantNamed(uri.String())}
	slot.Store(known)
	return known.tenant
}

// TenantFromMethod returns a TenantFunc that makes each method a tenant, whoever calls it, so that methods share the
// service: one that is called too often is refused before the others are. Callers choose among methods, but get what
// they choose. Only behind grpc.UnknownServiceHandler can they make them up.
func TenantFromMethod() TenantFunc {
	return func(_ context.Context, fullMethod string) limiter.Tenant { return limiter.TenantNamed(fullMethod) }
}
