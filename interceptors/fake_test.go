package interceptors

import (
	"context"

	"google.golang.org/grpc"
)

// fakeStream is a stream outside of any server.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (f *fakeStream) Context() context.Context { return f.ctx }
func (f *fakeStream) RecvMsg(any) error        { return nil }
func (f *fakeStream) SendMsg(any) error        { return nil }

var streamInfo = &grpc.StreamServerInfo{FullMethod: "/a.B/Stream", IsClientStream: true, IsServerStream: true}
