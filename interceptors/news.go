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

// MarkTrailer is the trailer in which a server tells its caller, with the answer to a unary request, how long its line is:
// "1;m=35" is version 1 and a [limiter.Limiter.Mark] of .35, of the server or of what it called for the request, whichever
// is more. A server in which nobody waits sends none, unless it was asked: see [HandoverHeader].
const MarkTrailer = "spillway-mark"

// HandoverHeader is the metadata in which the caller of a unary request asks whether the server holds its own load, so that
// it may hand over to it: "1" is version 1, and any value asks. One that does answers with a [MarkTrailer], be it of 0; one
// in a dry run does not, and sends none. A client with [WithHandover] asks until it knows, and again after ten seconds
// without a word.
const HandoverHeader = "spillway-handover"

const handoverVersion = "1"

var handoverQuestion = metadata.Pairs(HandoverHeader, handoverVersion) // never changed

// news is what a callee said of its load.
type news struct {
	pressure float64 // from 0 to 1; 0: nothing was said, or that there is none
	mark     float64 // the same
	holds    bool    // a mark was sent, as by those only who hold their load
}

// tell sets the trailers of a request that was served, if there is anything to tell, or it was asked whether the server
// holds its load. In a dry run it does not, and passes on no mark, which would say so.
func (s *Server) tell(ctx context.Context, asked, dryRun bool) {
	set(ctx, &s.loads, LoadTrailer, pressureField, max(limiter.Pressure(ctx), limiter.PressureMet(ctx)), false)
	if !dryRun {
		set(ctx, &s.marks, MarkTrailer, markField, limiter.MarkMet(ctx), asked)
	}
}

// What stands before the number in the trailers: the version, and what the number is.
const pressureField, markField = "1;p=", "1;m="

// set sets a trailer that says a part, if that is a percent at least or was asked for.
func set(ctx context.Context, known *percentages, trailer, field string, part float64, asked bool) {
	if percent := int(100 * part); percent > 0 || asked {
		// It fails only outside of a gRPC server, where nobody reads trailers.
		_ = grpc.SetTrailer(ctx, known.of(trailer, field, min(percent, 100)))
	}
}

// percentages are the values of a trailer that a server can send, put together once. The zero value is ready for use.
type percentages struct {
	trailers [101]atomic.Pointer[metadata.MD]
}

func (p *percentages) of(trailer, field string, percent int) metadata.MD {
	at := &p.trailers[percent]
	if md := at.Load(); md != nil {
		return *md
	}
	md := metadata.Pairs(trailer, field+strconv.Itoa(percent))
	at.Store(&md)
	return md
}

// maxNews is far more than a trailer has, and little enough to look at.
const maxNews = 64

// parseNews reads both trailers, each for itself. why says why the first that could not be read was ignored.
func parseNews(trailer metadata.MD) (news, ignored) {
	pressure, _, why := parsePart(trailer[LoadTrailer], pressureField)
	mark, holds, whyNot := parsePart(trailer[MarkTrailer], markField)
	if why == notIgnored {
		why = whyNot
	}
	return news{pressure, mark, holds}, why
}

// parsePart reads the values of a trailer. Further fields may follow, which are of later versions that this one can read
// too. What is not of version 1, doubled, too long or out of range counts as nothing said.
func parsePart(values []string, field string) (part float64, said bool, why ignored) {
	switch {
	case len(values) == 0:
		return 0, false, notIgnored
	case len(values) > 1:
		return 0, false, doubled
	case len(values[0]) > maxNews:
		return 0, false, oversized
	}
	digits, ok := strings.CutPrefix(values[0], field)
	if !ok {
		return 0, false, unknown
	}
	digits, _, _ = strings.Cut(digits, ";")
	percent, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || percent > 100 {
		return 0, false, malformed
	}
	return float64(percent) / 100, true, notIgnored
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
