//go:build linux

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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/limiter"
)

// A server runs in a process of its own: this program again, told by the environment what to be.
const (
	scenarioVariable = "SPILLWAY_SIGNALS_SCENARIO"
	withoutVariable  = "SPILLWAY_SIGNALS_WITHOUT" // not empty: the signals are off
)

type service struct {
	grpc_testing.UnimplementedTestServiceServer
	work func(context.Context)
}

func (s *service) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	s.work(ctx)
	return &grpc_testing.SimpleResponse{}, nil
}

// serve is the main function of a server process. It tells its address on out and ends when in does: with its parent,
// whatever becomes of that.
func serve(name string, with bool, in io.Reader, out io.Writer) error {
	s, ok := scenarioNamed(name)
	if !ok {
		return fmt.Errorf("%s is %q; want one of %q", scenarioVariable, name, scenarioNames())
	}
	if err := s.bound(); err != nil {
		return fmt.Errorf("the memory cannot be bounded: %w", err)
	}
	var opts []limiter.Option
	if !with {
		opts = append(opts, limiter.WithoutSignals())
	}
	if s.limit > 0 {
		opts = append(opts, limiter.WithInitialLimit(s.limit))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer(interceptors.ServerOptions(interceptors.WithLimiterOptions(opts...))...)
	grpc_testing.RegisterTestServiceServer(srv, &service{work: s.work})
	fmt.Fprintln(out, listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		srv.Stop()
	}()
	return srv.Serve(listener)
}

// server is a server process, seen from outside.
type server struct {
	address string
	command *exec.Cmd
	in      io.Closer
}

func start(s scenario, with bool) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &server{command: exec.Command(self)}
	p.command.Env = append(os.Environ(), scenarioVariable+"="+s.name)
	if !with {
		p.command.Env = append(p.command.Env, withoutVariable+"=1")
	}
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanln(bufio.NewReader(out), &p.address); err != nil {
		_, err := p.stop()
		return nil, errors.Join(fmt.Errorf("the server of %q did not start", s.name), err)
	}
	return p, nil
}

// stop ends the server and reports whether it had died before.
func (p *server) stop() (died bool, err error) {
	_ = p.in.Close()
	err = p.command.Wait()
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		return true, nil
	}
	return false, err
}

// used returns the CPU time of a server that has ended.
func (p *server) used() time.Duration {
	return p.command.ProcessState.UserTime() + p.command.ProcessState.SystemTime()
}
