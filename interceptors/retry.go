package interceptors

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/spillway-go/spillway/internal/methodkey"
)

// Retries are gRPC's own (gRFC A6): a client only says, in its service config, which methods to retry and how.

// retryPolicy is for an instant in which a callee is not there: it restarts, or the connection breaks. Only UNAVAILABLE
// is such: RESOURCE_EXHAUSTED is a refusal, and whoever refuses has work enough without a second try. Three attempts, as
// in Google's SRE book, chapter 21; gRPC draws the jitter, of a fifth both ways.
const retryPolicy = `{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}`

// retryThrottling bounds the retries of a connection, all methods together.
//
// gRPC counts tokens, at most maxTokens: a success adds tokenRatio, and an attempt that failed takes one, and is
// retried only if more than half of them are left then. So what is above the half is at first 10, grows by at most .09 a
// call, and pays 1 for each retry: of n calls, fewer than 10 + .09 n retries. When all fail, the share is below a tenth
// from a hundred calls on; with any mix, from a thousand on. What fails for good leaves none at all. With each list of
// addresses from the resolver, for DNS at most every 30 s, gRPC begins anew.
const retryThrottling = `{"maxTokens":20,"tokenRatio":0.09}`

// halfRetryThrottling is the same where hedges have the other half: fewer than 10 + .05 n.
const halfRetryThrottling = `{"maxTokens":20,"tokenRatio":0.05}`

// retries says what a client retries.
type retries struct {
	idempotent []methodName // by the user's word
	off        bool
	base       *string // the service config that the user wants besides
	hedging    bool    // it has half of the budget
}

// WithIdempotent lets gRPC retry methods whose descriptor does not say that it may. Each is a full method,
// "/pkg.Service/Method", or "/pkg.Service/*" for all of a service. Name only what does no harm when it is done twice,
// because it only reads, sets what it finds set already, or is known again by its key, see package
// [github.com/spillway-go/spillway/interceptors/idempotency]. Given more than once, the methods add up. The default are
// the methods of all services linked into the binary that have the option idempotency_level with NO_SIDE_EFFECTS or
// IDEMPOTENT. [NewClient] rejects an empty list and names of another form; [Client.SetOptions] rejects the option.
func WithIdempotent(methods ...string) ClientOption {
	return startClientOption{"WithIdempotent", func(c *clientConfig) error {
		if len(methods) == 0 {
			return errors.New("interceptors: WithIdempotent(); want the methods, or leave the option out")
		}
		for _, key := range methods {
			if !methodkey.Valid(key) {
				return fmt.Errorf(`interceptors: WithIdempotent(%q); want a full method like "/pkg.Service/Method", or "/pkg.Service/*" for all of a service`, key)
			}
			service, method, _ := strings.Cut(key[1:], "/")
			c.retries.idempotent = append(c.retries.idempotent, methodName{service, strings.TrimSuffix(method, "*")})
		}
		return nil
	}}
}

// WithoutRetries leaves the retries out of the service config: what [WithServiceConfig] says of them holds.
// [Client.SetOptions] rejects it.
func WithoutRetries() ClientOption {
	return startClientOption{"WithoutRetries", func(c *clientConfig) error {
		c.retries.off = true
		return nil
	}}
}

// WithServiceConfig adds retries and [BackendPolicy] to a service config that is wanted besides, as JSON:
//
//	interceptors.WithServiceConfig(`{"loadBalancingConfig": [{"weighted_round_robin": {}}]}`)
//
// What it says holds: a retryPolicy or a retryThrottling of its own stays as it is, and what it says of a method, of a
// service or of all also holds for those methods of them that are retried. The load balancing that it asks for becomes the
// child of [BackendPolicy], unless it names that itself. The default is the retries, and pick_first as the child.
// [NewClient] rejects what is no JSON object, method configs without a name or with one that another has, and a second service
// config; the rest is for gRPC to check, when it dials. [Client.SetOptions] rejects the option.
func WithServiceConfig(json string) ClientOption {
	return startClientOption{"WithServiceConfig", func(c *clientConfig) error {
		if c.retries.base != nil {
			return errors.New("interceptors: WithServiceConfig is given twice; want one service config")
		}
		c.retries.base = &json
		return nil
	}}
}

// ServiceConfig returns the service config that [Client.DialOptions] gives to gRPC, as JSON: for a resolver, whose
// service config takes the place of this one, or for those who dial without DialOptions.
func (c *Client) ServiceConfig() string { return c.config }

// serviceConfig puts the service config together.
func (r *retries) serviceConfig(files *protoregistry.Files) (string, error) {
	names := r.idempotent
	if r.off {
		names = nil
	} else {
		names = append(slices.Clip(names), idempotentMethods(files)...)
	}
	config := newServiceConfig()
	if r.base != nil {
		if err := config.parse(*r.base); err != nil {
			return "", fmt.Errorf("interceptors: WithServiceConfig: %w", err)
		}
	}
	if err := config.balance(); err != nil {
		return "", fmt.Errorf("interceptors: WithServiceConfig: %w", err)
	}
	if len(names) == 0 {
		return config.String(), nil
	}
	throttling := retryThrottling
	if r.hedging {
		throttling = halfRetryThrottling
	}
	config.retry(names, throttling)
	return config.String(), nil
}

// idempotentMethods returns the methods that may be called twice, by their own word.
func idempotentMethods(files *protoregistry.Files) (names []methodName) {
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				options, _ := method.Options().(*descriptorpb.MethodOptions)
				if options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
					names = append(names, methodName{string(service.FullName()), string(method.Name())})
				}
			}
		}
		return true
	})
	return names
}
