// Idempotency shows payments that are repeated, and made once: two servers share a store of idempotency keys in an SQL
// database, and a caller who has heard nothing from the one asks the other, with the same key.
//
//	go run ./examples/idempotency
//
// The database is SQLite, in memory. It takes some 5 s: SQLite is compiled first, and then one of the servers dies over a
// payment, and its lease has to end.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/spillway-go/spillway/interceptors"
	"github.com/spillway-go/spillway/interceptors/idempotency"
)

const (
	lease = time.Second // the default of a minute is too long for a show
	keep  = time.Hour
)

// till makes payments: the reason why nothing must be done twice.
type till struct {
	pb.UnimplementedTestServiceServer
	db   *sql.DB
	dies bool // over its first payment, before it has done anything
}

func (t *till) UnaryCall(ctx context.Context, order *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if t.dies {
		runtime.Goexit() // no answer, and no claim released
	}
	result, err := t.db.ExecContext(ctx, `INSERT INTO payment (amount) VALUES (?)`, order.GetResponseSize())
	if err != nil {
		return nil, err
	}
	number, err := result.LastInsertId()
	return &pb.SimpleResponse{Username: fmt.Sprintf("receipt %d", number)}, err
}

// serve starts a server on loopback and returns a client of it.
func serve(t *till, keys idempotency.Store) (client pb.TestServiceClient, stop func(), err error) {
	repeats, err := idempotency.NewServer(
		func(context.Context, string) string { return "anybody" }, // idempotency.CallerFromCertificate() where there is TLS
		idempotency.WithStore(keys), idempotency.WithLease(lease))
	if err != nil {
		return nil, nil, err
	}
	srv := grpc.NewServer(append(interceptors.ServerOptions(), repeats.ServerOptions()...)...)
	pb.RegisterTestServiceServer(srv, t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	go func() { _ = srv.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), append(interceptors.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		srv.Stop()
		return nil, nil, err
	}
	return pb.NewTestServiceClient(conn), func() {
		_ = conn.Close()
		srv.Stop()
	}, nil
}

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run pays three orders, each at both servers.
func run(w io.Writer) (err error) {
	ctx := context.Background()
	db, err := sql.Open("sqlite3", "file:/shop?vfs=memdb&_pragma=busy_timeout(1000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `CREATE TABLE payment (number INTEGER PRIMARY KEY, amount INTEGER)`); err != nil {
		return err
	}
	keys, err := newStore(ctx, db, keep)
	if err != nil {
		return err
	}
	well, stopWell, err := serve(&till{db: db}, keys)
	if err != nil {
		return err
	}
	defer stopWell()
	ill, stopIll, err := serve(&till{db: db, dies: true}, keys)
	if err != nil {
		return err
	}
	defer stopIll()

	pay := func(what string, client pb.TestServiceClient, key string, amount int32, patience time.Duration) {
		ctx, cancel := context.WithTimeout(idempotency.ContextWithKey(ctx, key), patience)
		defer cancel()
		answer, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: amount})
		if err != nil {
			fmt.Fprintf(w, "%-44s %v\n", what, err)
			return
		}
		fmt.Fprintf(w, "%-44s %s\n", what, answer.GetUsername())
	}
	first, second := idempotency.NewKey(), idempotency.NewKey()
	pay("the first order:", well, first, 100, time.Minute)
	pay("once more, at the other server:", ill, first, 100, time.Minute)
	pay("another amount with the same key:", well, first, 200, time.Minute)
	pay("the second order, at a server that dies:", ill, second, 300, lease/4)
	pay("once more, at the other server:", well, second, 300, time.Minute)

	var payments, sum int
	if err := db.QueryRowContext(ctx, `SELECT count(*), sum(amount) FROM payment`).Scan(&payments, &sum); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d payments, %d in all\n", payments, sum)
	return nil
}
