package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bojand/ghz/runner"
	"google.golang.org/grpc/interop/grpc_testing"
)

// The test binary is also the server binary, as in main.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role, os.Getenv(addrVariable), os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func TestPoolServesInOrderAndHonoursTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool()
		for range workers {
			<-p.free
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.work(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("work in a pool without a free worker: %v, want DeadlineExceeded", err)
		}
		for range workers {
			p.free <- struct{}{}
		}
		nominal := workers / meanWork.Seconds()
		if got := p.capacity(100 * time.Second); math.Abs(got-nominal) > 0.02*nominal {
			t.Errorf("capacity %v in a world where sleep is exact, want %v", got, nominal)
		}
	})
}

func TestPercentile(t *testing.T) {
	values := make([]time.Duration, 0, 100)
	for i := 100; i > 0; i-- {
		values = append(values, time.Duration(i))
	}
	for p, want := range map[float64]time.Duration{0.5: 50, 0.99: 99, 1: 100, 0: 1} {
		if got := percentile(values, p); got != want {
			t.Errorf("percentile %v = %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("percentile of nothing = %v, want 0", got)
	}
}

func TestPacerIsPoisson(t *testing.T) {
	p := &poisson{ctx: t.Context(), rate: 1000, during: 20 * time.Second}
	calls, elapsed := 0, time.Duration(0)
	var sum, squares float64
	for {
		wait, stop := p.Pace(elapsed, uint64(calls))
		if stop {
			break
		}
		elapsed += wait
		calls++
		sum += wait.Seconds()
		squares += wait.Seconds() * wait.Seconds()
	}
	n := float64(calls)
	if math.Abs(n-20_000) > 1000 {
		t.Errorf("%d calls in 20s at 1000/s", calls)
	}
	if variability := squares*n/(sum*sum) - 1; math.Abs(variability-1) > 0.1 {
		t.Errorf("squared coefficient of variation %.2f, want 1", variability)
	}
}

func TestPacerEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := &poisson{ctx: ctx, rate: 1, during: time.Hour}
	if _, stop := p.Pace(0, 0); stop {
		t.Error("stopped before its time")
	}
	cancel()
	if _, stop := p.Pace(0, 1); !stop {
		t.Error("goes on after the context has ended")
	}
}

func TestMeasure(t *testing.T) {
	began := time.Unix(1000, 0)
	call := func(at, latency time.Duration, status string) runner.ResultDetail {
		return runner.ResultDetail{Timestamp: began.Add(at + latency), Latency: latency, Status: status}
	}
	report := &runner.Report{Total: 3 * time.Second, Details: []runner.ResultDetail{
		call(0, 10*time.Millisecond, "OK"),
		call(0, 600*time.Millisecond, "OK"), // too late
		call(time.Second/2, time.Millisecond, "ResourceExhausted"),
		call(1500*time.Millisecond, 2*time.Millisecond, "ResourceExhausted"),
		call(time.Second, 500*time.Millisecond, "DeadlineExceeded"),
		call(time.Second, time.Millisecond, "Unavailable"),
	}}
	got := measure(protected, phases[0], 10, 2*time.Second, report)
	want := result{Server: protected, Phase: "0.5x", OfferedPerS: 3, GoodputPerS: 0.5, GoodputOfCapacity: 0.05,
		P50Ms: 10, P99Ms: 10, Refused: 2, RefusedAfter1s: 1, Late: 2, OtherErrors: 1, RefusalP99Ms: 2}
	if got != want {
		t.Errorf("measure = %+v\nwant      %+v", got, want)
	}
}

func TestJSONIsOneObjectWithTheFieldsPromised(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, []result{{Server: protected, Phase: "10x"}}); err != nil {
		t.Fatal(err)
	}
	var object struct{ Phases []map[string]any }
	decoder := json.NewDecoder(&out)
	if err := decoder.Decode(&object); err != nil || decoder.More() {
		t.Fatalf("not one JSON object: %v", err)
	}
	for _, field := range []string{"server", "phase", "offered_per_s", "goodput_per_s", "goodput_of_capacity",
		"p50_ms", "p99_ms", "refused", "late", "refusal_p99_ms"} {
		if _, ok := object.Phases[0][field]; !ok {
			t.Errorf("no field %q", field)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"want 1s to 1m":          {"-for", "3h"},
		"unexpected argument":    {"please"},
		"loopback":               {"-addr", "192.0.2.1:80"},
		"such as 127.0.0.1:5005": {"-addr", "localhost"},
		"below 65535":            {"-addr", "127.0.0.1:65535"},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error that says %q", args, err, want)
		}
	}
	if err := run(t.Context(), []string{"-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = serve(bare, taken.Addr().String(), nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "-addr") {
		t.Errorf("serve on a taken port: %v, want an error that says so and what to do", err)
	}
}

// An interrupted run ends cleanly with what it has: here, nothing but the picture.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run(ctx, []string{"-out", dir}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Interrupted") {
		t.Errorf("output does not say that it was interrupted: %s", out.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "goodput.svg")); err != nil {
		t.Error(err)
	}
}

func TestDescriptorsHoldImportsFirst(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range fileSet(grpc_testing.File_grpc_testing_test_proto).File {
		for _, imported := range file.Dependency {
			if !seen[imported] {
				t.Errorf("%s comes before its import %s", file.GetName(), imported)
			}
		}
		seen[file.GetName()] = true
	}
}
