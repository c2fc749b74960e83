package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/spillway-go/spillway/interceptors"
)

// fleetHosts are all servers of a fleet.
type fleetHosts struct {
	t        *testing.T
	fleet    Fleet
	caller   Caller
	books    *fleetBooks
	instants *instants
	services [][]*fleetHost // the servers of each
}

// startHosts starts all servers, and connects those that call others.
func startHosts(t *testing.T, f Fleet, c Caller, books *fleetBooks) *fleetHosts {
	hosts := &fleetHosts{t: t, fleet: f, caller: c, books: books, instants: newInstants()}
	for i, s := range f.Services {
		var servers []*fleetHost
		for range s.Servers {
			h := &fleetHost{hosts: hosts, service: i, station: NewPool(s.Workers)}
			h.start()
			servers = append(servers, h)
		}
		hosts.services = append(hosts.services, servers)
	}
	for i, s := range f.Services {
		for _, h := range hosts.services[i] {
			for _, callee := range s.Calls {
				h.callees = append(h.callees, hosts.connect(callee, false))
			}
		}
	}
	return hosts
}

// stop stops all servers, callers before those that they call.
func (f *fleetHosts) stop() {
	for _, servers := range f.services {
		for _, h := range servers {
			h.grpc.Stop()
			h.ended()
			for _, conn := range h.callees {
				_ = conn.Close()
			}
		}
	}
}

// connect returns the connection of a client, or of a server, to a service, with what callers have.
func (f *fleetHosts) connect(callee int, client bool) *grpc.ClientConn {
	servers := f.services[callee]
	byAddress := map[string]*fleetHost{}
	var addresses []resolver.Address
	for i, h := range servers {
		address := fmt.Sprint("server-", i)
		byAddress[address] = h
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	names := manual.NewBuilderWithScheme("fleet")
	names.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient(fmt.Sprint("fleet:///service-", callee), append(f.caller.dial(),
		grpc.WithResolvers(names), grpc.WithStatsHandler(&journeyWatch{callee, client}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return byAddress[address].accept(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))...)
	if err != nil {
		f.t.Fatal(err)
	}
	conn.Connect()
	return conn
}

// fleetHost is one server, which may be stopped and started again.
type fleetHost struct {
	hosts   *fleetHosts
	service int
	station *Pool
	callees []*grpc.ClientConn

	mu         sync.Mutex        // guards all below
	listener   *bufconn.Listener // nil: it is down
	protection *interceptors.Server
	grpc       *grpc.Server
	served     chan error
}

// start starts it, protected and with nothing set.
func (h *fleetHost) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	protection, err := interceptors.NewServer(interceptors.WithMeterProvider(noop.NewMeterProvider()))
	if err != nil {
		h.hosts.t.Fatal(err)
	}
	h.protection = protection
	h.grpc = grpc.NewServer(append(protection.ServerOptions(), grpc.WaitForHandlers(true))...)
	method := Method{Name: fleetMethod}
	h.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: method.Name, Handler: handler(method, h.handle)}},
	}, nil)
	h.listener, h.served = bufconn.Listen(1<<20), make(chan error, 1)
	go func() { h.served <- h.grpc.Serve(h.listener) }()
}

// ended waits until it serves no more.
func (h *fleetHost) ended() {
	if err := <-h.served; err != nil {
		h.hosts.t.Errorf("Serve: %v", err)
	}
	_ = h.protection.Close()
}

// restart stops it as its users are told to, and starts it again after a time.
func (h *fleetHost) restart(down time.Duration) {
	patience, cancel := context.WithTimeout(context.Background(), h.hosts.fleet.Deadline)
	defer cancel()
	if err := h.protection.Drain(patience); err != nil {
		h.hosts.t.Error(err)
	}
	h.mu.Lock()
	h.listener = nil
	h.mu.Unlock()
	kill := time.AfterFunc(time.Second, h.grpc.Stop)
	h.grpc.GracefulStop()
	kill.Stop()
	h.ended()
	time.Sleep(down)
	h.start()
}

var errDown = errors.New("connection refused")

func (h *fleetHost) accept(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	listener := h.listener
	h.mu.Unlock()
	if listener == nil {
		return nil, errDown
	}
	return listener.DialContext(ctx)
}

// handle does the work of a request, and then calls for it whom it needs.
func (h *fleetHost) handle(ctx context.Context, req any) (any, error) {
	j := &h.hosts.books.journeys[req.(*wrapperspb.Int64Value).Value-1]
	size, rank := j.begin(h.hosts.fleet, h.service)
	who := sleeper{h.hosts.instants, rank}
	who.turn()
	h.station.Do(who, size)
	j.worked(size)
	errs := make(chan error, len(h.callees))
	for _, conn := range h.callees {
		go func() { errs <- send(ctx, conn, j) }()
	}
	for range h.callees {
		if err := <-errs; err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, nil
}
