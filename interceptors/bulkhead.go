package interceptors

import (
	"context"
	"fmt"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"

	"github.com/spillway-go/spillway/limiter"
)

// bulkheads say to which of the limiter's groups a request belongs.
type bulkheads struct {
	rules  []bulkheadRule
	shares map[string]float64
}

type bulkheadRule struct {
	name    string
	matcher selector.Matcher
}

// add takes over what an option says.
func (b *bulkheads) add(name string, share float64, m selector.Matcher) error {
	if err := notNil("WithBulkhead", "a selector.Matcher", m); err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("interceptors: WithBulkhead(%q, %v); want a name", name, share)
	}
	if !(share > 0 && share <= 1) { // nor NaN
		return fmt.Errorf("interceptors: WithBulkhead(%q, %v); want a share above 0 and at most 1", name, share)
	}
	has, ok := b.shares[name]
	if ok && has != share {
		return fmt.Errorf("interceptors: WithBulkhead(%q, %v); want %v, which it has already", name, share, has)
	}
	if b.shares == nil {
		b.shares = map[string]float64{}
	}
	b.shares[name] = share
	b.rules = append(b.rules, bulkheadRule{name, m})
	sum := 0.0
	for _, share := range b.shares {
		sum += share
	}
	if sum > 1+1e-9 { // decimals need not add up to 1 exactly
		return fmt.Errorf("interceptors: WithBulkhead(%q, %v): shares of %.6g in all; want at most 1", name, share, sum)
	}
	return nil
}

// given returns an error if a limiter that was made by somebody else does not guarantee what the rules say.
func (b *bulkheads) given(l *limiter.Limiter) error {
	has := sharesOf(l)
	for _, rule := range b.rules {
		if share := b.shares[rule.name]; has[rule.name] != share {
			return fmt.Errorf("interceptors: WithBulkhead(%q, %v), but the limiter of WithLimiter guarantees it %v;"+
				" want the same there first, by limiter.WithBulkheads or SetBulkheads", rule.name, share, has[rule.name])
		}
	}
	return nil
}

// sharesOf returns what a limiter guarantees now, by name.
func sharesOf(l *limiter.Limiter) map[string]float64 {
	shares := map[string]float64{}
	for _, group := range l.Bulkheads() {
		shares[group.Name] = group.Share
	}
	return shares
}

// match returns the name of the group, or "" for none.
func (b *bulkheads) match(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) string {
	if len(b.rules) == 0 {
		return ""
	}
	call := middleware.NewServerCallMeta(method, info, req)
	for _, rule := range b.rules {
		if rule.matcher.Match(ctx, call) {
			return rule.name
		}
	}
	return ""
}
