//go:build unix

package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// calleeVariable makes of the test binary a callee that listens at the address it holds.
const calleeVariable = "SPILLWAY_FAULTS_CALLEE"

func TestMain(m *testing.M) {
	if address := os.Getenv(calleeVariable); address != "" {
		if err := serveCallee(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveCallee says on its output where it listens, and serves until its input ends: with whoever started it.
func serveCallee(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, answering{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		srv.Stop()
	}()
	return srv.Serve(listener)
}

// callee is a process that answers.
type callee struct {
	cmd     *exec.Cmd
	address string
}

// startCallee starts a callee and waits until it listens. The test's end is its own.
func startCallee(t *testing.T, address string, with *syscall.SysProcAttr) *callee {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), calleeVariable+"="+address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = with
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &callee{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the callee says nothing of where it listens: %v", err)
	}
	c.address = strings.TrimSpace(line)
	return c
}

func (c *callee) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process, also one that is stopped, and may be called twice.
func (c *callee) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}
