package idempotency

import (
	"context"
	"crypto/x509"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// CallerFunc says whose key it is that comes with a call, or "" if nobody knows: such a call is rejected. fullMethod is
// like "/package.Service/Method". Whoever has the same name and knows a key can read its answer, so a name should be one
// that has been authenticated. It should also outlive the caller's connections and restarts, unlike an IP address: the
// same key of another name is another key. It may be called from many goroutines.
//
// Where all callers may see each other's answers, one name is enough:
//
//	func(context.Context, string) string { return "us" }
type CallerFunc func(ctx context.Context, fullMethod string) string

// CallerFromCertificate returns a CallerFunc for servers whose callers have a certificate that TLS has verified: the
// first URI in it, such as a SPIFFE ID, or else the first DNS name, or else the common name, each told apart from the
// others.
func CallerFromCertificate() CallerFunc {
	return func(ctx context.Context, _ string) string {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return ""
		}
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
			return ""
		}
		return nameIn(info.State.VerifiedChains[0][0])
	}
}

func nameIn(cert *x509.Certificate) string {
	switch {
	case len(cert.URIs) > 0:
		return "uri:" + cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return "dns:" + cert.DNSNames[0]
	case cert.Subject.CommonName != "":
		return "cn:" + cert.Subject.CommonName
	default:
		return ""
	}
}

// CallerFromMetadata returns a CallerFunc for servers behind a gateway that authenticates callers and writes their name
// into the metadata of that key, in place of what they sent. It must not be used where callers can write it themselves.
// Nobody knows who sends no value, more than one, or one of more than 256 bytes.
func CallerFromMetadata(key string) CallerFunc {
	return func(ctx context.Context, _ string) string {
		values := metadata.ValueFromIncomingContext(ctx, key)
		if len(values) != 1 || len(values[0]) > maxCaller {
			return ""
		}
		return values[0]
	}
}

const maxCaller = 256
