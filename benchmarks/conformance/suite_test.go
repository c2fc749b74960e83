package conformance

import (
	"context"
	"io"
	"strconv"
	"testing"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/testing/testpb"
	"github.com/stretchr/testify/suite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// The suite that go-grpc-middleware tests its own interceptors with: its service behind our interceptors, over TCP and
// TLS, with what its own tests want of the methods. It leaves one goroutine behind, which waits to start the server
// again.
func TestInterceptorSuite(t *testing.T) {
	for name, opts := range map[string][]interceptors.Option{
		"defaults":     nil,
		"every option": everyOption(),
		"without tap":  {interceptors.WithoutTap()},
	} {
		t.Run(name, func(t *testing.T) {
			protection := protect(t, opts...)
			suite.Run(t, &interceptorSuite{
				InterceptorTestSuite: &testpb.InterceptorTestSuite{
					TestService: &pingService{TestPingService: &testpb.TestPingService{}},
					ServerOpts:  append(protection.ServerOptions(), grpc.WaitForHandlers(true)),
					ClientOpts:  interceptors.DialOptions(),
				},
			})
		})
	}
}

// pingService answers a Ping with the criticality that its handler sees.
type pingService struct{ *testpb.TestPingService }

func (s *pingService) Ping(ctx context.Context, r *testpb.PingRequest) (*testpb.PingResponse, error) {
	resp, err := s.TestPingService.Ping(ctx, r)
	resp.Value += " " + limiter.CriticalityFromContext(ctx).String()
	return resp, err
}

type interceptorSuite struct{ *testpb.InterceptorTestSuite }

func (s *interceptorSuite) TestUnary() {
	_, err := s.Client.PingEmpty(s.SimpleCtx(), &testpb.PingEmptyRequest{})
	s.Require().NoError(err)
	resp, err := s.Client.Ping(limiter.ContextWithCriticality(s.SimpleCtx(), limiter.Sheddable), testpb.GoodPing)
	s.Require().NoError(err)
	s.Equal(testpb.GoodPing.GetValue()+" SHEDDABLE", resp.GetValue())
}

func (s *interceptorSuite) TestErrors() {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, err := s.Client.PingError(s.SimpleCtx(), &testpb.PingErrorRequest{ErrorCodeReturned: uint32(code)})
		s.Equal(code, status.Code(err))
		s.Equal("Userspace error", status.Convert(err).Message())
		s.Empty(status.Convert(err).Details(), "nothing is added to an error that is not ours")
		stream, err := s.Client.PingList(s.SimpleCtx(), &testpb.PingListRequest{ErrorCodeReturned: uint32(code)})
		s.Require().NoError(err)
		_, err = stream.Recv()
		s.Equal(code, status.Code(err))
	}
}

func (s *interceptorSuite) TestServerStream() {
	stream, err := s.Client.PingList(s.SimpleCtx(), testpb.GoodPingList)
	s.Require().NoError(err)
	for i := range testpb.ListResponseCount {
		resp, err := stream.Recv()
		s.Require().NoError(err)
		s.Equal(testpb.GoodPingList.GetValue(), resp.GetValue())
		s.EqualValues(i, resp.GetCounter())
	}
	_, err = stream.Recv()
	s.ErrorIs(err, io.EOF)
}

func (s *interceptorSuite) TestClientStream() {
	stream, err := s.Client.PingClientStream(s.SimpleCtx())
	s.Require().NoError(err)
	for range testpb.ListResponseCount {
		s.Require().NoError(stream.Send(&testpb.PingClientStreamRequest{}))
	}
	resp, err := stream.CloseAndRecv()
	s.Require().NoError(err)
	s.EqualValues(testpb.ListResponseCount, resp.GetCounter())
}

func (s *interceptorSuite) TestDuplex() {
	stream, err := s.Client.PingStream(s.SimpleCtx())
	s.Require().NoError(err)
	for i := range testpb.ListResponseCount {
		s.Require().NoError(stream.Send(&testpb.PingStreamRequest{Value: strconv.Itoa(i)}))
		resp, err := stream.Recv()
		s.Require().NoError(err)
		s.Equal(strconv.Itoa(i), resp.GetValue())
		s.EqualValues(i, resp.GetCounter())
	}
	s.Require().NoError(stream.CloseSend())
	_, err = stream.Recv()
	s.ErrorIs(err, io.EOF)
}

// The same protection serves the next server, whatever the end of the last has broken off.
func (s *interceptorSuite) TestRestart() {
	stream, err := s.Client.PingStream(s.SimpleCtx())
	s.Require().NoError(err)
	s.Require().NoError(stream.Send(&testpb.PingStreamRequest{}))
	_, err = stream.Recv()
	s.Require().NoError(err)
	<-s.RestartServer(0)
	_, err = stream.Recv()
	s.Equal(codes.Unavailable, status.Code(err))
	_, err = s.Client.Ping(s.SimpleCtx(), testpb.GoodPing, grpc.WaitForReady(true))
	s.NoError(err)
}
