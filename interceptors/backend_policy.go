package interceptors

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

// BackendPolicy is the name of the load-balancing policy that keeps apart what each backend of a name, by its address,
// does with the calls of a [Client]. Another policy picks, its child; the default is gRPC's own, pick_first:
//
//	{"loadBalancingConfig": [{"spillway_backends": {"childPolicy": [{"round_robin": {}}]}}]}
//
// A call that the picked backend would refuse, by what it refused lately, or that it would fail, goes to the next one
// that the child picks, of 16 at most. If none takes it, it fails with [ErrNotSent]. What is known of a backend goes away
// with its address, or with the connection.
//
// [DialOptions] have it in their service config, around what [WithServiceConfig] asks for. A resolver that brings a
// service config of its own has to name it there; without it what is learned is kept for a target, not for its backends.
const BackendPolicy = "spillway_backends"

// gRPC's registry can only be changed while a program starts.
func init() { balancer.Register(backendBuilder{}) }

type backendBuilder struct{}

func (backendBuilder) Name() string { return BackendPolicy }

func (backendBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return &backends{cc: cc, opts: opts, known: map[string]*address{}}
}

// backendConfig is the configuration of [BackendPolicy].
type backendConfig struct {
	serviceconfig.LoadBalancingConfig
	child  balancer.Builder
	config serviceconfig.LoadBalancingConfig // of the child
}

const defaultChild = `[{"pick_first":{}}]`

// ParseConfig takes the first child that this program has, as gRPC does.
func (backendBuilder) ParseConfig(raw json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	config := struct{ ChildPolicy []map[string]json.RawMessage }{}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("interceptors: %s: %w; want {\"childPolicy\": %s}", BackendPolicy, err, defaultChild)
	}
	if len(config.ChildPolicy) == 0 {
		_ = json.Unmarshal([]byte(defaultChild), &config.ChildPolicy)
	}
	for i, child := range config.ChildPolicy {
		if len(child) != 1 {
			return nil, fmt.Errorf("interceptors: %s: childPolicy %d has %d names; want one", BackendPolicy, i, len(child))
		}
		for name, raw := range child {
			builder := balancer.Get(name)
			if builder == nil {
				continue
			}
			parser, ok := builder.(balancer.ConfigParser)
			if !ok {
				return &backendConfig{child: builder}, nil
			}
			parsed, err := parser.ParseConfig(raw)
			if err != nil {
				return nil, fmt.Errorf("interceptors: %s: childPolicy %q: %w", BackendPolicy, name, err)
			}
			return &backendConfig{child: builder, config: parsed}, nil
		}
	}
	return nil, fmt.Errorf("interceptors: %s: this program has no policy of childPolicy %s; want one that is linked into it", BackendPolicy, raw)
}

// backends are those of one connection. gRPC calls its methods one after the other.
type backends struct {
	cc    balancer.ClientConn
	opts  balancer.BuildOptions
	child *backendChild // nil until the first addresses are there

	mu    sync.Mutex // never held while gRPC or the child is called
	known map[string]*address
}

// address is a backend with what keeps it from being forgotten.
type address struct {
	backend backend
	listed  bool // by the resolver
	conns   int
}

func (b *backends) UpdateClientConnState(s balancer.ClientConnState) error {
	config, ok := s.BalancerConfig.(*backendConfig)
	if !ok {
		return fmt.Errorf("interceptors: %s: the config is a %T: %w", BackendPolicy, s.BalancerConfig, balancer.ErrBadResolverState)
	}
	if b.child == nil || b.child.name != config.child.Name() {
		b.child.end()
		b.child = newBackendChild(b, config.child)
	}
	b.list(s.ResolverState)
	s.BalancerConfig = config.config
	return b.child.UpdateClientConnState(s)
}

// list takes in the addresses that there are now.
func (b *backends) list(s resolver.State) {
	listed := map[string]bool{}
	for _, endpoint := range s.Endpoints {
		for _, a := range endpoint.Addresses {
			listed[a.Addr] = true
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, a := range b.known {
		a.listed = listed[name]
		b.forget(name, a)
	}
	for name := range listed {
		b.of(name).listed = true
	}
}

// of returns an address. The lock is held.
func (b *backends) of(name string) *address {
	a := b.known[name]
	if a == nil {
		a = new(address)
		b.known[name] = a
	}
	return a
}

// forget takes an address out that nobody has any more. The lock is held.
func (b *backends) forget(name string, a *address) {
	if !a.listed && a.conns == 0 {
		delete(b.known, name)
		a.backend.forget()
	}
}

func (b *backends) ResolverError(err error) {
	if b.child != nil {
		b.child.ResolverError(err)
		return
	}
	b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: failing{err}})
}

// failing is a picker that has nothing to pick from.
type failing struct{ err error }

func (f failing) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, f.err
}

// UpdateSubConnState is not called: connections that are made here have a listener.
func (b *backends) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

func (b *backends) ExitIdle() {
	if b.child != nil {
		b.child.ExitIdle()
	}
}

func (b *backends) Close() {
	b.child.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, a := range b.known {
		delete(b.known, name)
		a.backend.forget()
	}
}

// backendChild is the policy that picks, and the connection as it sees it.
type backendChild struct {
	balancer.ClientConn
	balancer.Balancer
	name     string
	backends *backends

	mu    sync.Mutex
	ended bool
	conns map[*backendConn]struct{}
}

func newBackendChild(b *backends, builder balancer.Builder) *backendChild {
	c := &backendChild{ClientConn: b.cc, name: builder.Name(), backends: b, conns: map[*backendConn]struct{}{}}
	c.Balancer = builder.Build(c, b.opts)
	return c
}

// end closes a child and its connections: policies need not do the latter.
func (c *backendChild) end() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.Close()
	c.mu.Lock()
	left := make([]*backendConn, 0, len(c.conns))
	for sc := range c.conns {
		left = append(left, sc)
	}
	c.mu.Unlock()
	for _, sc := range left {
		sc.Shutdown()
	}
}

func (c *backendChild) UpdateState(s balancer.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ClientConn.UpdateState(balancer.State{ConnectivityState: s.ConnectivityState, Picker: &backendPicker{s.Picker}})
	}
}

var (
	errChildEnded = errors.New("interceptors: the policy is closed")
	errNoAddress  = errors.New("interceptors: a connection to no address; want one")
)

// NewSubConn makes a connection to a backend. One to several addresses, which only policies of old make, counts as one
// to the first.
func (c *backendChild) NewSubConn(addresses []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	if len(addresses) == 0 {
		return nil, errNoAddress
	}
	sc := &backendConn{child: c, address: addresses[0].Addr}
	if opts.StateListener == nil {
		//lint:ignore SA1019 policies of old hear of it in no other way
		opts.StateListener = func(s balancer.SubConnState) { c.UpdateSubConnState(sc, s) }
	}
	//lint:ignore SA1019 there is no other way to make one
	inner, err := c.ClientConn.NewSubConn(addresses, opts)
	if err != nil {
		return nil, err
	}
	sc.SubConn = inner
	if !c.keep(sc) {
		inner.Shutdown()
		return nil, errChildEnded
	}
	return sc, nil
}

// keep takes in a connection, unless the child has ended.
func (c *backendChild) keep(sc *backendConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.conns[sc] = struct{}{}
		sc.backend = c.backends.hold(sc.address)
	}
	return !c.ended
}

// UpdateAddresses is what policies of old call.
func (c *backendChild) UpdateAddresses(sc balancer.SubConn, addresses []resolver.Address) {
	//lint:ignore SA1019 see above
	sc.UpdateAddresses(addresses)
}

// backendConn is a connection to a backend.
type backendConn struct {
	balancer.SubConn
	child   *backendChild
	address string
	backend *backend
}

func (sc *backendConn) Shutdown() {
	sc.child.mu.Lock()
	_, held := sc.child.conns[sc]
	delete(sc.child.conns, sc)
	sc.child.mu.Unlock()
	if held {
		sc.child.backends.release(sc.address)
	}
	sc.SubConn.Shutdown()
}

// hold returns a backend that is not forgotten until it is released.
func (b *backends) hold(name string) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.of(name)
	a.conns++
	return &a.backend
}

func (b *backends) release(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.known[name]; a != nil {
		a.conns--
		b.forget(name, a)
	}
}
