package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bojand/ghz/runner"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const connections = 4

// load sends calls to address at the mean rate given for a time, each whether or not those before were answered.
func load(ctx context.Context, address string, rate float64, during time.Duration) (*runner.Report, error) {
	descriptors, err := proto.Marshal(fileSet(grpc_testing.File_grpc_testing_test_proto))
	if err != nil {
		return nil, err
	}
	request, err := proto.Marshal(&grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 100)}})
	if err != nil {
		return nil, err
	}
	config, err := runner.NewConfig("grpc.testing.TestService.UnaryCall", address,
		runner.WithProtosetBinary(descriptors),
		runner.WithBinaryData(request),
		runner.WithInsecure(true),
		runner.WithTimeout(deadline),
		runner.WithConnections(connections),
		runner.WithConcurrency(connections), // of the goroutines that start calls; with async, not of calls
		runner.WithAsync(true),
		runner.WithPacer(&poisson{ctx: ctx, rate: rate, during: during}),
		runner.WithDisableTemplateFuncs(true),
		runner.WithDisableTemplateData(true),
	)
	if err != nil {
		return nil, fmt.Errorf("ghz rejects its configuration: %w", err)
	}
	requester, err := runner.NewRequester(config)
	if err != nil {
		return nil, fmt.Errorf("ghz cannot load %s: %w", address, err)
	}
	return requester.Run()
}

// poisson is a ghz pacer with exponential times between calls: callers that know nothing of each other.
type poisson struct {
	ctx    context.Context
	rate   float64 // per second
	during time.Duration
	next   time.Duration // when the next call is due, since the start
}

// Pace returns how long to wait until the next call, or that it is over.
func (p *poisson) Pace(elapsed time.Duration, _ uint64) (time.Duration, bool) {
	p.next += time.Duration(rand.ExpFloat64() / p.rate * float64(time.Second))
	if p.next >= p.during || p.ctx.Err() != nil {
		return 0, true
	}
	return max(0, p.next-elapsed), false
}

// Rate returns the mean rate.
func (p *poisson) Rate(time.Duration) float64 { return p.rate }

// fileSet returns a file's descriptor with all that it imports, imports first.
func fileSet(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(file)
	return set
}
