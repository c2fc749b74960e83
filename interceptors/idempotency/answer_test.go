package idempotency

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestFinal(t *testing.T) {
	invite := map[codes.Code]bool{
		codes.Canceled: true, codes.DeadlineExceeded: true, codes.ResourceExhausted: true, codes.Aborted: true,
		codes.Unavailable: true, codes.Unauthenticated: true,
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if got := Final(status.Error(code, "")); got == invite[code] {
			t.Errorf("%v: %v, want %v", code, got, !invite[code])
		}
	}
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, fmt.Errorf("the leaf: %w", status.Error(codes.Unavailable, ""))} {
		if Final(err) {
			t.Errorf("%v is final, want it not to be", err)
		}
	}
	if !Final(errors.New("anything else")) {
		t.Error("an error without a status is not final, want UNKNOWN, which is")
	}
}

func TestAnswersComeBackAsTheyWere(t *testing.T) {
	detailed, err := status.New(codes.FailedPrecondition, "no money").WithDetails(&errdetails.ErrorInfo{Reason: "BROKE", Domain: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		resp proto.Message
		err  error
		want codes.Code
	}{
		"a message":        {&testpb.SimpleResponse{Username: "gopher", Payload: &testpb.Payload{Body: []byte("x")}}, nil, codes.OK},
		"an empty message": {&emptypb.Empty{}, nil, codes.OK},
		"a status":         {nil, detailed.Err(), codes.FailedPrecondition},
		"a wrapped status": {nil, fmt.Errorf("the bank: %w", detailed.Err()), codes.FailedPrecondition},
		"an error":         {nil, errors.New("boom"), codes.Unknown},
	} {
		encoded, err := encode(c.resp, c.err)
		if err != nil || len(encoded) == 0 {
			t.Fatalf("%s: %d bytes, %v", name, len(encoded), err)
		}
		resp, err := decode(encoded)
		if status.Code(err) != c.want || len(status.Convert(err).Details()) != len(status.Convert(c.err).Details()) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if message, _ := resp.(proto.Message); err == nil && !proto.Equal(message, c.resp) {
			t.Errorf("%s: %v, want %v", name, resp, c.resp)
		}
	}
}

func TestWhatCannotBeStored(t *testing.T) {
	if _, err := encode("a string", nil); err == nil || !strings.Contains(err.Error(), "want a proto.Message") {
		t.Errorf("a string: %v, want an error", err)
	}
	if _, err := fingerprintOf("a string"); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "want a proto.Message") {
		t.Errorf("a string: %v, want INTERNAL", err)
	}
	if _, err := fingerprintOf(&testpb.SimpleResponse{Username: "\xff"}); status.Code(err) != codes.Internal {
		t.Errorf("no UTF-8: %v, want INTERNAL", err)
	}
}

// What comes out of a store may be anything.
func FuzzDecode(f *testing.F) {
	for _, err := range []error{nil, status.Error(codes.NotFound, "no")} {
		encoded, failure := encode(&testpb.SimpleResponse{Username: "gopher"}, err)
		if failure != nil {
			f.Fatal(failure)
		}
		f.Add(encoded)
	}
	f.Add([]byte{})
	f.Add(tooLarge(nil))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if resp, err := decode(answer); (resp == nil) == (err == nil) {
			t.Errorf("%q: %v, %v; want one of both", answer, resp, err)
		}
	})
}
