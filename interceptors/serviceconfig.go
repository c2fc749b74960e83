package interceptors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/balancer/pickfirst"
	_ "google.golang.org/grpc/balancer/weightedroundrobin" // so that a service config can name it
)

// methodName is a method as service configs name it: without a method it is all of the service, and without both it is
// everything.
type methodName struct {
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
}

// serviceConfig is a service config of which only the retries and the load balancing matter here: all else passes
// through as it is.
type serviceConfig struct {
	rest    object
	methods map[methodName]object // without the names
}

func newServiceConfig() *serviceConfig {
	return &serviceConfig{rest: object{}, methods: map[methodName]object{}}
}

// parse takes over a service config that the user wrote.
func (s *serviceConfig) parse(config string) error {
	if err := json.Unmarshal([]byte(config), &s.rest); err != nil || s.rest == nil {
		return fmt.Errorf("want a JSON object with a service config, such as {}: %w", cmp.Or(err, errNull))
	}
	var methods []object
	if err := s.rest.take("methodConfig", &methods); err != nil {
		return err
	}
	for i, method := range methods {
		var names []methodName
		if err := method.take("name", &names); err != nil {
			return fmt.Errorf("methodConfig %d: %w", i, err)
		}
		if len(names) == 0 {
			return fmt.Errorf("methodConfig %d has no name; want a list like [{\"service\": \"pkg.Service\"}]", i)
		}
		for _, name := range names {
			if _, known := s.methods[name]; known {
				return fmt.Errorf("methodConfig %d: the name %+v is there already; want each once", i, name)
			}
			s.methods[name] = method
		}
	}
	return nil
}

var errNull = errors.New("it is null")

// retry adds the retries of methods. gRPC uses but one method config for a call, that of the nearest name, so a name
// that is new begins with what held for it till now.
func (s *serviceConfig) retry(names []methodName, throttling string) {
	before := maps.Clone(s.methods)
	for _, name := range names {
		s.methods[name] = nearest(before, name).with("retryPolicy", retryPolicy)
		if name.Method != "" {
			continue
		}
		for other, config := range before { // the methods that have one of their own
			if other.Service == name.Service {
				s.methods[other] = config.with("retryPolicy", retryPolicy)
			}
		}
	}
	s.rest = s.rest.with("retryThrottling", throttling)
}

// balance puts [BackendPolicy] around what the config balances with.
func (s *serviceConfig) balance() error {
	var children []object
	if err := s.rest.take("loadBalancingConfig", &children); err != nil {
		return err
	}
	var name string // of old, which gRPC reads where there is no config
	if err := s.rest.take("loadBalancingPolicy", &name); err != nil {
		return err
	}
	if children == nil {
		if name != "" {
			children = append(children, object{name: json.RawMessage("{}")})
		}
		children = append(children, object{pickfirst.Name: json.RawMessage("{}")}) // gRPC's own, also where it does not have the other
	}
	if !slices.ContainsFunc(children, func(child object) bool { return child[BackendPolicy] != nil }) {
		policy := object{"childPolicy": json.RawMessage(encode(children))}
		children = []object{{BackendPolicy: json.RawMessage(encode(policy))}}
	}
	s.rest["loadBalancingConfig"] = json.RawMessage(encode(children))
	return nil
}

// nearest returns the method config that gRPC would use, or nil.
func nearest(methods map[methodName]object, name methodName) object {
	for _, name := range []methodName{name, {Service: name.Service}, {}} {
		if config, ok := methods[name]; ok {
			return config
		}
	}
	return nil
}

// String returns the JSON, which is the same each time.
func (s *serviceConfig) String() string {
	alike := map[string][]methodName{} // by what holds for them
	for name, config := range s.methods {
		key := encode(config)
		alike[key] = append(alike[key], name)
	}
	methods := []object{}
	for _, key := range slices.Sorted(maps.Keys(alike)) {
		slices.SortFunc(alike[key], func(a, b methodName) int {
			return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Method, b.Method))
		})
		var config object
		_ = json.Unmarshal([]byte(key), &config) // it was encoded above
		methods = append(methods, config.with("name", encode(alike[key])))
	}
	if len(methods) == 0 {
		return encode(s.rest)
	}
	return encode(s.rest.with("methodConfig", encode(methods)))
}

// object is a JSON object of which only a few members are looked at.
type object map[string]json.RawMessage

// take decodes a member, if it is there, and takes it out.
func (o object) take(name string, value any) error {
	key, ok := o.find(name)
	if !ok {
		return nil
	}
	raw := o[key]
	delete(o, key)
	if err := json.Unmarshal(raw, value); err != nil {
		return fmt.Errorf("%s is not what it should be: %w", name, err)
	}
	return nil
}

// with returns a copy with a member more, unless there is one of that name.
func (o object) with(name, value string) object {
	if _, ok := o.find(name); ok {
		return o
	}
	more := maps.Clone(o)
	if more == nil {
		more = object{}
	}
	more[name] = json.RawMessage(value)
	return more
}

// find returns the key of a member that is not null. gRPC does not tell upper case from lower in it.
func (o object) find(name string) (string, bool) {
	for key, value := range o {
		if strings.EqualFold(key, name) && !bytes.Equal(value, []byte("null")) {
			return key, true
		}
	}
	return "", false
}

// encode is for what cannot fail: strings, and JSON that was read before.
func encode(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
