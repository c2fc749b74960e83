package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/spillway-go/spillway/interceptors"
)

// A server runs in a process of its own: this program again, told its role by the environment.
const (
	roleVariable = "SPILLWAY_OVERLOAD_ROLE"
	addrVariable = "SPILLWAY_OVERLOAD_ADDR"
)

// service answers each call with a piece of work from the pool.
type service struct {
	grpc_testing.UnimplementedTestServiceServer
	pool *pool
}

func (s *service) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if err := s.pool.work(ctx); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &grpc_testing.SimpleResponse{}, nil
}

// serve is the main function of a server process. It measures the pool, tells address and capacity on out, and
// ends when in does: with its parent, whatever becomes of that.
func serve(role, addr string, in io.Reader, out io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("the address %s of the %s server is in use; stop what uses it, or choose another with -addr", addr, role)
		}
		return fmt.Errorf("the %s server cannot listen on %s: %w", role, addr, err)
	}
	var opts []grpc.ServerOption
	if role == protected {
		opts = interceptors.ServerOptions()
	}
	srv := grpc.NewServer(opts...)
	p := newPool()
	grpc_testing.RegisterTestServiceServer(srv, &service{pool: p})
	fmt.Fprintf(out, "%s %g\n", listener.Addr(), p.capacity(1500*time.Millisecond))
	go func() {
		_, _ = io.Copy(io.Discard, in)
		srv.Stop()
	}()
	return srv.Serve(listener)
}

// process is a server that was started.
type process struct {
	address  string
	capacity float64
	command  *exec.Cmd
	input    io.Closer
}

// start runs a server process and waits until it serves.
func start(role, addr string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), roleVariable+"="+role, addrVariable+"="+addr)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; the server ends with its input
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, input: input}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &p.address, &p.capacity)
	}
	if err != nil {
		_ = input.Close()
		_ = command.Wait()
		return nil, fmt.Errorf("the %s server did not start", role)
	}
	return p, nil
}

// stop ends the server and waits for it.
func (p *process) stop() error {
	_ = p.input.Close()
	if err := p.command.Wait(); err != nil {
		return fmt.Errorf("a server ended with: %w", err)
	}
	return nil
}

// serverAddresses returns the addresses of both servers. The load goes to this machine only.
func serverAddresses(addr string) ([2]string, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return [2]string{}, fmt.Errorf("-addr %q; want an address and a port, such as 127.0.0.1:50051", addr)
	}
	if !ap.Addr().IsLoopback() {
		return [2]string{}, fmt.Errorf("-addr %q; want a loopback address: this program never loads another machine", addr)
	}
	if ap.Port() == 0 {
		return [2]string{addr, addr}, nil
	}
	if ap.Port() == 65535 {
		return [2]string{}, fmt.Errorf("-addr %q; want a port below 65535, for the second server takes the next one", addr)
	}
	return [2]string{addr, netip.AddrPortFrom(ap.Addr(), ap.Port()+1).String()}, nil
}
