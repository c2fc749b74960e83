package interceptors

import (
	"context"

	"google.golang.org/grpc"
)

// fakeStream is a stream outside of any server. Its messages come when recv says so, or at once.
type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	recv chan struct{}
}

func (f *fakeStream) Context() context.Context { return f.ctx }
func (f *fakeStream) SendMsg(any) error        { return nil }

func (f *fakeStream) RecvMsg(any) error {
	if f.recv != nil {
		<-f.recv
	}
	return nil
}

var streamInfo = &grpc.StreamServerInfo{FullMethod: "/a.B/Stream", IsClientStream: true, IsServerStream: true}
