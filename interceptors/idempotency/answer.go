package idempotency

import (
	"crypto/sha256"
	"fmt"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Final reports whether an error is an answer to be stored, as OK is, when [WithFinal] is not given. All are but those
// that invite a repeat: CANCELED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE and UNAUTHENTICATED. So
// INTERNAL and UNKNOWN are stored: something may have been done, and whoever wants another try takes another key. An
// error without a status counts by the code that gRPC answers with.
func Final(err error) bool {
	switch codeOf(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Unavailable, codes.Unauthenticated:
		return false
	default:
		return true
	}
}

// statusOf is what gRPC makes of a handler's error.
func statusOf(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.FromContextError(err)
}

func codeOf(err error) codes.Code { return statusOf(err).Code() }

// encode returns an answer as it is stored: a google.rpc.Status, which of OK has the message as its only detail.
func encode(resp any, err error) ([]byte, error) {
	if err != nil {
		return proto.Marshal(statusOf(err).Proto())
	}
	message, ok := resp.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("the answer is a %T; want a proto.Message", resp)
	}
	detail, err := anypb.New(message)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&spb.Status{Details: []*anypb.Any{detail}})
}

// decode returns what encode was given.
func decode(answer []byte) (any, error) {
	st := new(spb.Status)
	if err := proto.Unmarshal(answer, st); err != nil {
		return nil, unreadable(err)
	}
	if st.Code != int32(codes.OK) {
		return nil, status.FromProto(st).Err()
	}
	if len(st.Details) != 1 {
		return nil, unreadable(fmt.Errorf("%d messages", len(st.Details)))
	}
	message, err := st.Details[0].UnmarshalNew()
	if err != nil {
		return nil, unreadable(err)
	}
	return message, nil
}

func unreadable(err error) error {
	return status.Errorf(codes.DataLoss, "spillway: this was done before, but its answer cannot be read any more: %v", err)
}

// tooLarge stands for an answer that the store has no room for. It keeps the work from being done again.
func tooLarge(err error) []byte {
	answer, _ := proto.Marshal(status.Newf(codes.DataLoss, // strings alone can be encoded
		"spillway: this was done before, and ended with %v, but its answer was too large to be kept", codeOf(err)).Proto())
	return answer
}

// fingerprintOf tells requests apart by their message, or returns the status for one that is none.
func fingerprintOf(req any) (Fingerprint, error) {
	message, ok := req.(proto.Message)
	if !ok {
		return Fingerprint{}, status.Errorf(codes.Internal, "spillway: the request is a %T; want a proto.Message for calls with %s", req, Header)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return Fingerprint{}, status.Errorf(codes.Internal, "spillway: the request cannot be told from others: %v", err)
	}
	return sha256.Sum256(encoded), nil
}
