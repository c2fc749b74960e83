package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"time"

	"github.com/spillway-go/spillway/interceptors/idempotency"
)

// store keeps claims and answers in a table, for all servers that share the database. It needs nothing but an upsert, as
// SQLite and PostgreSQL have it (which writes $1, $2, ... for the question marks). Time is the servers': their clocks may
// differ by less than a tenth of a lease.
type store struct {
	db   *sql.DB
	keep time.Duration // how long an answer is kept
}

const schema = `
	CREATE TABLE IF NOT EXISTS idempotency (
		method      TEXT   NOT NULL,
		caller      TEXT   NOT NULL,
		key         TEXT   NOT NULL,
		fingerprint BLOB   NOT NULL,
		holder      TEXT   NOT NULL, -- one of each claim
		ends        BIGINT NOT NULL, -- in milliseconds since 1970
		answer      BLOB,            -- NULL while it is a claim
		PRIMARY KEY (method, caller, key)
	);
	CREATE INDEX IF NOT EXISTS idempotency_ends ON idempotency (ends)`

func newStore(ctx context.Context, db *sql.DB, keep time.Duration) (*store, error) {
	_, err := db.ExecContext(ctx, schema)
	return &store{db, keep}, err
}

// Claim writes a claim where there is nothing, or nothing that is still good, in one statement, and then looks whose
// claim or answer it is.
func (s *store) Claim(ctx context.Context, id idempotency.ID, of idempotency.Fingerprint, lease time.Duration) (idempotency.Claim, []byte, error) {
	now, mine := time.Now(), rand.Text()
	if _, err := s.db.ExecContext(ctx, `
		INSERT INTO idempotency (method, caller, key, fingerprint, holder, ends) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (method, caller, key) DO UPDATE
		SET fingerprint = excluded.fingerprint, holder = excluded.holder, ends = excluded.ends, answer = NULL
		WHERE idempotency.ends <= ?`,
		id.Method, id.Caller, id.Key, of[:], mine, now.Add(lease).UnixMilli(), now.UnixMilli()); err != nil {
		return nil, nil, err
	}
	var fingerprint, answer []byte
	var holder string
	err := s.db.QueryRowContext(ctx, `
		SELECT fingerprint, holder, answer FROM idempotency WHERE method = ? AND caller = ? AND key = ?`,
		id.Method, id.Caller, id.Key).Scan(&fingerprint, &holder, &answer)
	switch {
	case errors.Is(err, sql.ErrNoRows): // released in between: the next look finds it free
		return nil, nil, idempotency.ErrHeld
	case err != nil:
		return nil, nil, err
	case holder == mine:
		return &claim{s, id, mine}, nil, nil
	case !bytes.Equal(fingerprint, of[:]):
		return nil, nil, idempotency.ErrMismatch
	case answer == nil:
		return nil, nil, idempotency.ErrHeld
	default:
		return nil, answer, nil
	}
}

// Sweep deletes what has ended. Somebody should call it now and then, if only for the disk.
func (s *store) Sweep(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM idempotency WHERE ends <= ?`, time.Now().UnixMilli())
	return err
}

// claim is good as long as the row has its holder.
type claim struct {
	store  *store
	id     idempotency.ID
	holder string
}

func (c *claim) Put(ctx context.Context, answer []byte) error {
	result, err := c.store.db.ExecContext(ctx, `
		UPDATE idempotency SET answer = ?, ends = ? WHERE method = ? AND caller = ? AND key = ? AND holder = ?`,
		answer, time.Now().Add(c.store.keep).UnixMilli(), c.id.Method, c.id.Caller, c.id.Key, c.holder)
	if err != nil {
		return err
	}
	if stored, err := result.RowsAffected(); err != nil || stored == 0 {
		return errors.Join(idempotency.ErrLost, err)
	}
	return nil
}

func (c *claim) Release(ctx context.Context) error {
	_, err := c.store.db.ExecContext(ctx, `
		DELETE FROM idempotency WHERE method = ? AND caller = ? AND key = ? AND holder = ? AND answer IS NULL`,
		c.id.Method, c.id.Caller, c.id.Key, c.holder)
	return err
}
