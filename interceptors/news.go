package interceptors

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/limiter"
)

// LoadTrailer is the trailer in which a server under pressure tells its caller so: "1;p=87" is version 1 and a
// [limiter.Pressure] of .87 for requests of this criticality, of the server or of what it calls for them, whichever is
// more. A server without pressure sends none.
const LoadTrailer = "spillway-load"

// news is what a callee said of its load.
type news struct {
	pressure float64 // from 0 to 1; 0: nothing was said
}

// tell sets the trailer of a request that was served, if there is anything to tell.
func (s *Server) tell(ctx context.Context) {
	percent := int(100 * max(limiter.Pressure(ctx), limiter.PressureMet(ctx)))
	if percent > 0 {
		// It fails only outside of a gRPC server, where nobody reads trailers.
		_ = grpc.SetTrailer(ctx, s.loads.trailer(percent))
	}
}

// loads are the trailers that a server can send, put together once. The zero value is ready for use.
type loads struct {
	trailers [101]atomic.Pointer[metadata.MD]
}

func (l *loads) trailer(percent int) metadata.MD {
	at := &l.trailers[min(percent, 100)]
	if md := at.Load(); md != nil {
		return *md
	}
	md := metadata.Pairs(LoadTrailer, "1;p="+strconv.Itoa(min(percent, 100)))
	at.Store(&md)
	return md
}

// maxNews is far more than the trailer has, and little enough to look at.
const maxNews = 64

// parseNews reads the values of the trailer. What is not of version 1, doubled, too long or out of range counts as
// nothing said.
func parseNews(values []string) (n news, why ignored) {
	switch {
	case len(values) == 0:
		return news{}, notIgnored
	case len(values) > 1:
		return news{}, doubled
	case len(values[0]) > maxNews:
		return news{}, oversized
	}
	digits, ok := strings.CutPrefix(values[0], "1;p=")
	if !ok {
		return news{}, unknown
	}
	percent, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || percent > 100 {
		return news{}, malformed
	}
	return news{pressure: float64(percent) / 100}, notIgnored
}

// refuser says whose refusal an error is.
type refuser uint8

const (
	nobody   refuser = iota // it is none
	somebody                // of a server that knows nothing of this package, or of its proxy
	spillway                // of this package
)

func refusedBy(err error) refuser {
	if err == nil {
		return nobody
	}
	said, ok := errors.AsType[withStatus](err) // status.FromError would change the message of one that is wrapped
	if !ok {
		return nobody
	}
	switch st := said.GRPCStatus(); {
	case st.Code() != codes.ResourceExhausted:
		return nobody
	case isOurs(st):
		return spillway
	default:
		return somebody
	}
}

type withStatus interface {
	error
	GRPCStatus() *status.Status
}

// isOurs reports whether a status is of this package, here or at a server, and not of what the server does.
func isOurs(st *status.Status) bool {
	details := st.Details()
	for _, detail := range details {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return true
		}
	}
	return len(details) == 0 && st.Code() == codes.ResourceExhausted &&
		(st.Message() == messageOverloaded || st.Message() == messageTooLate)
}
