package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// TestMain keeps a test case of package interop that fails from ending the process: it says so to grpclog's Fatal,
// which calls os.Exit as soon as the logger's own Fatal returns. Ours does not return, it panics, and attempt
// recovers. Only what fails on a goroutine that a case started itself would still end the process, with a trace.
func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(fatalLogger{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)})
	os.Exit(m.Run())
}

// fatalLogger panics where others would exit. Its static type has no FatalDepth, so that grpclog calls these.
type fatalLogger struct{ grpclog.LoggerV2 }

// fatal is what was said.
type fatal string

func (fatalLogger) Fatal(args ...any)                 { panic(fatal(fmt.Sprint(args...))) }
func (fatalLogger) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }
func (fatalLogger) Fatalln(args ...any)               { panic(fatal(fmt.Sprintln(args...))) }

// attempt runs f, and returns as an error what it says to grpclog's Fatal.
func attempt(f func()) (err error) {
	defer func() {
		switch said := recover().(type) {
		case nil:
		case fatal:
			err = errors.New(strings.TrimSpace(string(said)))
		default:
			panic(said)
		}
	}()
	f()
	return nil
}

func TestFailedCaseIsAnError(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	err = attempt(func() { interop.DoEmptyUnaryCall(context.Background(), testpb.NewTestServiceClient(conn)) })
	if err == nil || !strings.Contains(err.Error(), "EmptyCall RPC failed") {
		t.Errorf("a case over a closed connection = %v, want what it said", err)
	}
}
