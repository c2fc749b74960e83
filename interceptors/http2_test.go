package interceptors

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/test/bufconn"
)

// rawPeer speaks HTTP/2 as no client of gRPC would. It acknowledges nothing and ignores what it is told. What it cannot
// write, because the server has hung up, is lost.
type rawPeer struct {
	net.Conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	last    uint32 // stream that was opened
}

func newRawPeer(t *testing.T, listener *bufconn.Listener) *rawPeer {
	t.Helper()
	conn, err := listener.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &rawPeer{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	r.AllowIllegalWrites = true
	r.encoder = hpack.NewEncoder(&r.block)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = r.WriteSettings()
	return r
}

// open opens a stream for a method, with more headers (names and values), and returns its number.
func (r *rawPeer) open(path string, more ...string) uint32 {
	if r.last++; r.last%2 == 0 {
		r.last++
	}
	r.headers(r.last, false, path, more...)
	return r.last
}

// headers opens the stream of that number, or tries to.
func (r *rawPeer) headers(stream uint32, end bool, path string, more ...string) {
	r.block.Reset()
	all := append([]string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "raw",
		"content-type", "application/grpc", "te", "trailers",
	}, more...)
	for i := 0; i < len(all); i += 2 {
		_ = r.encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	_ = r.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: r.block.Bytes(), EndHeaders: true, EndStream: end,
	})
}

// message is one of gRPC that says it has so many bytes and has some of them.
func message(says uint32, has int) []byte {
	b := make([]byte, 5+has)
	binary.BigEndian.PutUint32(b[1:], says)
	return b
}
