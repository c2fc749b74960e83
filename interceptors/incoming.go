package interceptors

import (
	"context"
	"sync"

	"google.golang.org/grpc/metadata"
)

// incoming looks at the metadata that came with a request without copying it. metadata.FromIncomingContext copies
// all of it and metadata.ValueFromIncomingContext all values of a header, so that a caller who sends ten thousand
// of them would be the one who decides how much is allocated here. The zero value is ready for use.
type incoming struct{ peeks sync.Pool } // of *peek

// metadata returns what came with the request, or nil. It is shared and must not be changed.
func (i *incoming) metadata(ctx context.Context) metadata.MD {
	p, _ := i.peeks.Get().(*peek)
	if p == nil {
		p = new(peek)
	}
	p.Context = ctx
	md, _ := metadata.FromIncomingContext(p) // nil, but for a gRPC that keeps its metadata in another way: then a copy
	if p.found != nil {
		md = p.found
	}
	*p = peek{}
	i.peeks.Put(p)
	return md
}

// peek is a context that keeps the metadata that it is asked for, and denies having any.
type peek struct {
	context.Context
	found metadata.MD
}

func (p *peek) Value(key any) any {
	value := p.Context.Value(key)
	if md, ok := value.(metadata.MD); ok {
		p.found = md
		return nil
	}
	return value
}
