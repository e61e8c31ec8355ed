package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// sweepEvery is how often expired records are removed.
	sweepEvery = time.Minute
	// maxRecords bounds the records of an embedded store.
	maxRecords = 100_000
)

// EmbeddedOptions configure an [Embedded].
type EmbeddedOptions struct {
	Limits     Limits
	MaxClients int           // zero: 100,000
	Kept       time.Duration // how long records outlive their demo; zero: one hour
}

// Embedded keeps limits and records in this process: for development, where
// there is one scheduler and no Valkey.
type Embedded struct {
	local *local
	kept  time.Duration

	mu      sync.Mutex
	records map[api.LeaseID]embeddedRecord
}

type embeddedRecord struct {
	demo    api.Demo
	expires time.Time
}

// NewEmbedded returns an empty store.
func NewEmbedded(o EmbeddedOptions) (*Embedded, error) {
	if err := o.Limits.validate(); err != nil {
		return nil, fmt.Errorf("session store: %w", err)
	}
	setDefault(&o.MaxClients, defaultClients)
	setDefault(&o.Kept, defaultKept)
	return &Embedded{
		local: newLocal(o.Limits.windows(), o.MaxClients), kept: o.Kept, records: map[api.LeaseID]embeddedRecord{},
	}, nil
}

// Allow counts one acquire of a client and says whether it is within its
// limits. Nothing is counted where it is not. The error is always nil.
func (e *Embedded) Allow(_ context.Context, client string) (api.Quota, error) {
	if len(e.local.windows) == 0 {
		return api.Quota{Allowed: true}, nil
	}
	return e.local.allow(keyOf(nil, client), time.Now()), nil
}

// Put stores the record of a demo, without credentials, unless a newer one is
// there. A full store drops records that are not there yet.
func (e *Embedded) Put(_ context.Context, d api.Demo) {
	d.Credentials = nil
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	old, ok := e.records[d.ID]
	if ok && old.demo.Revision > d.Revision || !ok && len(e.records) >= maxRecords {
		return
	}
	e.records[d.ID] = embeddedRecord{demo: d, expires: now.Add(recordTTL(d, e.kept, now))}
}

// Get returns the record of a demo. The error is always nil.
func (e *Embedded) Get(_ context.Context, id api.LeaseID) (api.Demo, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok := e.records[id]
	if !ok || !time.Now().Before(r.expires) {
		return api.Demo{}, false, nil
	}
	return r.demo, true, nil
}

// Status returns that the store works.
func (e *Embedded) Status() api.StoreStatus { return api.StoreStatus{Kind: "embedded", Healthy: true} }

// Run removes expired records until ctx ends.
func (e *Embedded) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			e.sweep(now)
		}
	}
}

func (e *Embedded) sweep(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, r := range e.records {
		if !now.Before(r.expires) {
			delete(e.records, id)
		}
	}
}
