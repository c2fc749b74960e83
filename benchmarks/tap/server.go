package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	grpctap "google.golang.org/grpc/tap"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// A server runs in a process of its own: this program again, told its role by the environment.
const roleVariable = "SPILLWAY_TAP_ROLE"

// The roles.
const (
	bare        = "served without Spillway"
	served      = "served"
	floor       = "refused in a bare tap" // by a status without details, the least that gRPC can do
	tap         = "refused in the tap"
	interceptor = "refused in the interceptor"
)

var roles = []string{bare, served, floor, tap, interceptor}

// service answers at once.
type service struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (*service) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{}, nil
}

// serve is the main function of a server process. It tells its address on out, and after that, for each line of in,
// the CPU time that it has used, in microseconds. It ends when in does: with its parent, whatever becomes of that.
func serve(role string, in io.Reader, out io.Writer) error {
	opts, err := options(role)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer(opts...)
	grpc_testing.RegisterTestServiceServer(srv, &service{})
	fmt.Fprintln(out, listener.Addr())
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			fmt.Fprintln(out, used().Microseconds())
		}
		srv.Stop()
	}()
	return srv.Serve(listener)
}

func options(role string) ([]grpc.ServerOption, error) {
	switch role {
	case bare:
		return nil, nil
	case served:
		room := limiter.WithInitialLimit(1000) // for all callers
		return interceptors.ServerOptions(interceptors.WithLimiterOptions(room)), nil
	case floor:
		no := status.Error(codes.ResourceExhausted, "no")
		return []grpc.ServerOption{grpc.InTapHandle(func(ctx context.Context, _ *grpctap.Info) (context.Context, error) {
			return ctx, no
		})}, nil
	case tap, interceptor:
		full, err := newFull()
		if err != nil {
			return nil, err
		}
		opts := []interceptors.Option{interceptors.WithLimiter(full)}
		if role == interceptor {
			opts = append(opts, interceptors.WithoutTap())
		}
		return interceptors.ServerOptions(opts...), nil
	default:
		return nil, fmt.Errorf("%s is %q; want one of %q", roleVariable, role, roles)
	}
}

// newFull returns a limiter that refuses everybody, for as long as the process lives.
func newFull() (*limiter.Limiter, error) {
	lim, err := limiter.New(limiter.WithFixedLimit(1))
	if err != nil {
		return nil, err
	}
	if _, err := lim.Acquire(context.Background()); err != nil {
		return nil, err
	}
	for lim.Preview(context.Background(), limiter.Request{}) == nil { // until the line is full too
		go func() { _, _ = lim.Acquire(context.Background()) }()
		time.Sleep(time.Millisecond)
	}
	return lim, nil
}

// used returns the CPU time of this process so far.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// server is a server process, seen from the client.
type server struct {
	role    string
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	conn    *grpc.ClientConn
}

func start(role string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{role: role, command: exec.Command(self)}
	s.command.Env = append(os.Environ(), roleVariable+"="+role)
	s.command.Stderr = os.Stderr
	if s.in, err = s.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	var address string
	if _, err := fmt.Fscanln(s.out, &address); err != nil {
		return nil, errors.Join(fmt.Errorf("the server %q tells no address: %w", role, err), s.stop())
	}
	if s.conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// used returns the CPU time that the server has used so far.
func (s *server) used() (time.Duration, error) {
	if _, err := fmt.Fprintln(s.in); err != nil {
		return 0, err
	}
	var microseconds int64
	_, err := fmt.Fscanln(s.out, &microseconds)
	return time.Duration(microseconds) * time.Microsecond, err
}

func (s *server) stop() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	return errors.Join(err, s.in.Close(), s.command.Wait())
}
