package interceptors

import (
	"fmt"
	"maps"
	"time"

	"github.com/spillway-go/spillway/limiter"
)

// policy is how requests are treated, as the options say. It is never changed, only replaced. The tap and the
// interceptor each read the server's pointer to it once for a request; the interceptor decides alone, whatever the tap
// has read before. A stream keeps what it was opened with.
type policy struct {
	exempt      exemptions
	dryRun      dryRun
	bulkheads   bulkheads
	criticality CriticalityFunc // nil: not given
	methods     methodTable
	trust       trust
	tenant      TenantFunc                  // nil: not given
	weight      WeightFunc                  // nil: not given
	outcome     func(error) limiter.Outcome // nil: not given
	incoming    incoming
}

// SetOptions puts in force, at once, what [NewServer] would have with these options in place of the old ones: what is
// left out has its default again, so that a configuration that is read again gives the whole list again. It may be
// called at any time, from any goroutine. No request is refused for it, and each is treated by the old options or by
// the new, never by some of both; a stream keeps those that it was opened with.
//
// [WithLimiter], [WithLimiterOptions], [WithMeterProvider], [WithoutTap] and [WithLoadReports] hold from NewServer on:
// they stay as they were, and are rejected here. The shares of [WithBulkhead] go to the server's own limiter, together
// with those of WithLimiterOptions and in place of all others, for streams that are open too; see
// [limiter.Limiter.SetBulkheads]. A limiter that was given has to be told before, by its SetBulkheads. An error names
// what is wrong, and leaves everything as it was.
func (s *Server) SetOptions(opts ...Option) error {
	for _, opt := range opts {
		if fixed, ok := opt.(lasting); ok {
			return fmt.Errorf("interceptors: %s cannot be changed while serving; want it in NewServer, and not in SetOptions", fixed.lasts())
		}
	}
	c, err := newConfig(opts)
	if err != nil {
		return err
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	return s.put(c.policy)
}

// put puts a policy in force, or returns an error and changes nothing. The shares come first, for they may be wrong:
// so no new rule looks for a group in vain. Who still follows an old rule to a group that is gone is served as one of
// no group, for that instant. The caller holds setting.
func (s *Server) put(p *policy) error {
	if s.shares == nil {
		if err := p.bulkheads.given(s.limiter); err != nil {
			return err
		}
	} else {
		shares := maps.Clone(s.shares)
		maps.Copy(shares, p.bulkheads.shares)
		if err := s.limiter.SetBulkheads(shares); err != nil {
			return fmt.Errorf("interceptors: the shares of WithBulkhead, with those of WithLimiterOptions: %w", err)
		}
	}
	s.policy.Store(p)
	return nil
}

// Settings is what is in force at a server, for an operator to look at and to compare. As JSON and by %+v it shows
// levels by their names.
type Settings struct {
	Methods map[string]limiter.Criticality // of WithMethodCriticality, by the keys that it takes
	Ceiling limiter.Criticality            // what a caller may claim at most
	Baggage bool                           // callers' baggage is read too

	CriticalityFunc bool // WithCriticality is given
	TenantFunc      bool // WithTenant is given
	WeightFunc      bool // WithWeight is given
	OutcomeFunc     bool // WithOutcome is given
	Exemptions      int  // matchers of WithExempt
	DryRun          bool // WithDryRun is given for all requests
	DryRuns         int  // matchers of WithDryRun

	BulkheadRules []string           // the names of WithBulkhead, in the order in which their matchers are asked
	Bulkheads     []limiter.Bulkhead // of the limiter, at this moment
	Costs         []limiter.Method   // of the methods that have been called, as learned
	Limit         int                // requests in flight that the limiter allows at this moment
}

// Settings returns a copy of what is in force.
func (s *Server) Settings() Settings {
	s.setting.Lock()
	p, groups := s.policy.Load(), s.limiter.Bulkheads()
	s.setting.Unlock()
	rules := make([]string, 0, len(p.bulkheads.rules))
	for _, rule := range p.bulkheads.rules {
		rules = append(rules, rule.name)
	}
	return Settings{
		Methods:         p.methods.entries(),
		Ceiling:         p.trust.ceiling,
		Baggage:         p.trust.baggage,
		CriticalityFunc: p.criticality != nil,
		TenantFunc:      p.tenant != nil,
		WeightFunc:      p.weight != nil,
		OutcomeFunc:     p.outcome != nil,
		Exemptions:      len(p.exempt),
		DryRun:          p.dryRun.all,
		DryRuns:         len(p.dryRun.some),
		BulkheadRules:   rules,
		Bulkheads:       groups,
		Costs:           s.limiter.Methods(),
		Limit:           s.limiter.Stats().Limit,
	}
}

// SetOptions puts in force, at once, what [NewClient] would have with these options in place of the old ones: what is
// left out has its default again. It may be called at any time, from any goroutine. An error names what is wrong, and
// leaves everything as it was.
//
// [WithIdempotent], [WithoutRetries], [WithServiceConfig], [WithCalleeLimit], [WithHedging] and [WithMeterProvider] hold
// from NewClient on: they stay as they were, and are rejected here.
func (c *Client) SetOptions(opts ...ClientOption) error {
	for _, opt := range opts {
		if fixed, ok := opt.(lasting); ok {
			return fmt.Errorf("interceptors: %s cannot be changed while connected; want it in NewClient, and not in SetOptions", fixed.lasts())
		}
	}
	config, err := newClientConfig(opts)
	if err != nil {
		return err
	}
	c.policy.Store(&config.policy)
	return nil
}

// ClientSettings is what is in force at a client; see [Settings].
type ClientSettings struct {
	Ceiling limiter.Criticality // what came with a request may claim at most
	Baggage bool                // baggage is read and written too

	LeastDeadline time.Duration // of unary calls that come without a deadline
	MostDeadline  time.Duration // 0: they get none
	Breaker       bool          // calls to what is broken are not sent
	Handover      bool          // who waits for a callee that holds its load is not in flight
	Fallbacks     int           // of WithFallback and WithLastGood
}

// Settings returns a copy of what is in force.
func (c *Client) Settings() ClientSettings {
	p := c.policy.Load()
	return ClientSettings{
		Ceiling:       p.trust.ceiling,
		Baggage:       p.trust.baggage,
		LeastDeadline: p.deadlines.least,
		MostDeadline:  p.deadlines.most,
		Breaker:       !p.withoutBreaker,
		Handover:      p.handover,
		Fallbacks:     len(p.fallbacks),
	}
}
