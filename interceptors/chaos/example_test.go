package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/interceptors/chaos"
)

// The faults stand inside of Spillway, and do nothing until a game starts.
func ExampleNewServer() {
	faults, err := chaos.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(append(interceptors.ServerOptions(), faults.ServerOptions()...)...)
	defer srv.Stop()
	fmt.Println(len(faults.Faults()), "faults in force")
	// Output: 0 faults in force
}

// One call in a hundred fails and one in twenty is late, for ten minutes, while the server serves.
func ExampleServer_Start() {
	faults, err := chaos.NewServer(chaos.WithSeed(2026))
	if err != nil {
		fmt.Println(err)
		return
	}
	shop := []string{"/acme.v1.Shop/*"}
	err = faults.Start(
		chaos.Fault{Kind: chaos.Error, Code: codes.Unavailable, Share: .01, Methods: shop, For: 10 * time.Minute},
		chaos.Fault{Kind: chaos.Delay, Delay: 10 * time.Microsecond, Share: .05, Methods: shop, For: 10 * time.Minute},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer faults.Stop()
	serve := faults.UnaryInterceptor()
	for range 1000 {
		_, _ = serve(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/acme.v1.Shop/Browse"},
			func(context.Context, any) (any, error) { return "goods", nil })
	}
	for _, f := range faults.Faults() {
		fmt.Println(f.Kind, f.Injected, "of", f.Seen)
	}
	// Output:
	// error 10 of 1000
	// delay 48 of 990
}

// What has no blast radius does not start.
func ExampleServer_Start_error() {
	faults, err := chaos.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(faults.Start(chaos.Fault{Kind: chaos.Panic, Methods: []string{chaos.AllMethods}, Share: 1, For: time.Minute}))
	// Output: chaos: fault 0: a Share of 1 over all methods, or over a Matcher that may select them; want AllCalls too, if every call is meant
}

// A call that got no answer goes on as soon as somebody stops the game.
func ExampleServer_Stop() {
	faults, err := chaos.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = faults.Start(chaos.Fault{Kind: chaos.Drop, Share: 1, Methods: []string{"/acme.v1.Shop/Pay"}, For: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	answered := make(chan any)
	go func() {
		answer, _ := faults.UnaryInterceptor()(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/acme.v1.Shop/Pay"},
			func(context.Context, any) (any, error) { return "paid", nil })
		answered <- answer
	}()
	faults.Stop()
	fmt.Println(<-answered, len(faults.Faults()))
	// Output: paid 0
}

// What an operator sees of a game.
func ExampleServer_Faults() {
	faults, err := chaos.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	noon := time.Date(2126, 11, 21, 12, 0, 0, 0, time.UTC)
	err = faults.Start(chaos.Fault{Kind: chaos.Drop, Share: .05, Methods: []string{"/acme.v1.Shop/*"}, From: noon, For: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer faults.Stop()
	text, err := json.Marshal(faults.Faults()[0])
	fmt.Println(string(text), err)
	// Output: {"Kind":"drop","Share":0.05,"Methods":["/acme.v1.Shop/*"],"From":"2126-11-21T12:00:00Z","Until":"2126-11-21T13:00:00Z","Seen":0,"Injected":0} <nil>
}

// A switch for operators, by HTTP.
func Example_switch() {
	faults, err := chaos.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer faults.Stop()
	admin := http.NewServeMux()
	admin.HandleFunc("PUT /chaos", func(w http.ResponseWriter, r *http.Request) {
		var plan []chaos.Fault
		strict := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		strict.DisallowUnknownFields()
		err := strict.Decode(&plan)
		if err == nil {
			err = faults.Start(plan...)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	for _, plan := range []string{
		`[{"Kind": "error", "Code": "UNAVAILABLE", "Share": 1, "Methods": ["/*"], "For": 60000000000}]`,
		`[{"Kind": "error", "Code": "UNAVAILABLE", "Share": 0.01, "Methods": ["/*"], "For": 60000000000}]`,
	} {
		answer := httptest.NewRecorder()
		admin.ServeHTTP(answer, httptest.NewRequest("PUT", "/chaos", strings.NewReader(plan)))
		fmt.Println(answer.Code, len(faults.Faults()))
	}
	// Output:
	// 400 0
	// 200 1
}

// A client plays that a callee is away for a tenth of those calls that a matcher selects.
func ExampleNewClient() {
	faults, err := chaos.NewClient()
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := grpc.NewClient("passthrough:///shop", append(faults.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	err = faults.Start(chaos.Fault{
		Kind: chaos.Drop, Share: .1, For: time.Minute,
		Matcher: selector.MatchFunc(func(_ context.Context, call middleware.CallMeta) bool { return call.Method == "Recommend" }),
	})
	fmt.Println(len(faults.Faults()), "fault in force,", err)
	faults.Stop()
	// Output: 1 fault in force, <nil>
}
