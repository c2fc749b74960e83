package interceptors_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/spillway-go/spillway/interceptors"
)

// The order in which a server ends. A whole program, with signals, is in examples/drain.
func ExampleServer_Drain() {
	protection, err := interceptors.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(protection.ServerOptions()...)
	healthpb.RegisterHealthServer(srv, protection.Health())

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fmt.Println(protection.Drain(ctx)) // new work is refused, the rest is finished
	stop := time.AfterFunc(5*time.Second, srv.Stop)
	srv.GracefulStop() // connections are closed
	stop.Stop()
	// Output: <nil>
}

// Load balancers ask over HTTP whether the server wants work, and orchestrators whether to restart it.
func ExampleServer_ServeReady() {
	protection, err := interceptors.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	probes := http.NewServeMux()
	probes.HandleFunc("/readyz", protection.ServeReady)
	probes.HandleFunc("/livez", protection.ServeLive)

	ask := func(path string) {
		answer := httptest.NewRecorder()
		probes.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(path, " ", answer.Code, " ", answer.Body)
	}
	ask("/readyz")
	_ = protection.Drain(context.Background())
	ask("/readyz")
	ask("/livez")
	// Output:
	// /readyz 200 SERVING
	// /readyz 503 NOT_SERVING
	// /livez 200 LIVE
}

// A handler that waits for something to tell ends when the server drains.
func ExampleServer_Draining() {
	protection, err := interceptors.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	news, told := make(chan string), make(chan error)
	go func() { // as in the handler of a stream
		select {
		case <-news:
			told <- nil
		case <-protection.Draining():
			told <- interceptors.ErrDraining
		}
	}()
	_ = protection.Drain(context.Background())
	fmt.Println(<-told)
	// Output: rpc error: code = Unavailable desc = spillway: this server is about to stop, ask another
}
