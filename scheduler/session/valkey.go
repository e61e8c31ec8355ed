package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/boss/demo-multiplexer/api"
)

// Valkey keeps limits and records in Valkey. Until Run has connected, and
// whenever Valkey is down, it behaves as [Policy] says.
type Valkey struct {
	options Options
	logger  *slog.Logger
	metrics metrics
	windows []window
	args    []string

	limits  *valkey.Lua
	records *valkey.Lua
	local   *local
	queue   *queue
	breaker *breaker
	client  atomic.Pointer[valkey.Client] // written by Run only; nil while there is no connection
}

// NewValkey returns a store. It does not connect: Run does.
func NewValkey(o Options) (*Valkey, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("session store: %w", err)
	}
	ws := o.Limits.windows()
	return &Valkey{
		options: o, logger: o.Logger, metrics: newMetrics(o.Registerer), windows: ws, args: limitArgs(ws),
		limits: valkey.NewLuaScript(limitScript), records: valkey.NewLuaScript(recordScript),
		local: newLocal(ws, o.MaxClients), queue: newQueue(o.QueueSize), breaker: newBreaker(),
	}, nil
}

// Allow counts one acquire of a client and says whether it is within its
// limits. Nothing is counted where it is not. While Valkey is down, the local
// limiter decides, or an [*api.Error] with [api.CodeUnavailable] is returned.
func (v *Valkey) Allow(ctx context.Context, client string) (api.Quota, error) {
	if len(v.windows) == 0 {
		return api.Quota{Allowed: true}, nil
	}
	key := keyOf(v.options.Secret, client)
	var q api.Quota
	err := v.call(ctx, callLimit, func(ctx context.Context, c valkey.Client) (err error) {
		q, err = limitReply(v.limits.Exec(ctx, c, limitKeys(key.String(), v.windows), v.args), v.windows)
		return err
	})
	switch {
	case err == nil:
		return q, nil
	case ctx.Err() != nil:
		return api.Quota{}, fmt.Errorf("check limits: %w", context.Cause(ctx))
	}
	v.metrics.fallbacks.WithLabelValues(string(v.options.WhenDown)).Inc()
	if v.options.WhenDown == PolicyRefuse {
		return api.Quota{}, &api.Error{
			Code: api.CodeUnavailable, Message: "rate limits cannot be checked right now; retry in a moment",
			RetryAfter: 2 * v.options.ProbeEvery, Err: err,
		}
	}
	return v.local.allow(key, time.Now()), nil
}

// Get returns the record of a demo, without credentials. An error means that
// Valkey cannot say; the replicated state can.
func (v *Valkey) Get(ctx context.Context, id api.LeaseID) (api.Demo, bool, error) {
	var raw string
	err := v.call(ctx, callGet, func(ctx context.Context, c valkey.Client) (err error) {
		raw, err = c.Do(ctx, c.B().Hget().Key(recordKey(id)).Field("demo").Build()).ToString()
		if valkey.IsValkeyNil(err) {
			raw, err = "", nil
		}
		return err
	})
	if err != nil {
		return api.Demo{}, false, &api.Error{
			Code: api.CodeUnavailable, Message: "session records cannot be read right now; retry in a moment",
			RetryAfter: 2 * v.options.ProbeEvery, Err: err,
		}
	}
	if raw == "" {
		return api.Demo{}, false, nil
	}
	d, err := decodeRecord(id, raw)
	return d, err == nil, err
}

// Put writes the record of a demo some time soon, and never makes the caller
// wait. While Valkey is down the newest records are kept until it is back.
func (v *Valkey) Put(_ context.Context, d api.Demo) {
	d.Credentials = nil
	if v.queue.put(d) {
		v.metrics.dropped.Inc()
	}
}

// Status returns whether Valkey answers.
func (v *Valkey) Status() api.StoreStatus {
	why := v.breaker.why()
	return api.StoreStatus{Kind: "valkey", Healthy: why == "", Reason: why}
}

// call runs one call of a request, within the call timeout, unless Valkey is
// known to be down.
func (v *Valkey) call(ctx context.Context, name string, f func(context.Context, valkey.Client) error) error {
	c := v.client.Load()
	if c == nil || v.breaker.open.Load() {
		return errDown
	}
	short, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	start := time.Now()
	err := f(short, *c)
	v.metrics.observe(name, start, err)
	if err == nil {
		v.breaker.succeed()
		return nil
	}
	if ctx.Err() == nil { // else the caller has gone, which says nothing about Valkey
		v.failed(err)
	}
	return err
}

func (v *Valkey) failed(err error) {
	if v.breaker.fail(err) {
		v.metrics.up.Set(0)
		v.logger.Warn("valkey is down; going on without it", "policy", v.options.WhenDown, "err", err)
	}
}

// Run connects, tries Valkey regularly and writes records until ctx ends. It
// returns nil then: a Valkey that cannot be reached is no reason to stop.
func (v *Valkey) Run(ctx context.Context) error {
	defer v.disconnect()
	ticker := time.NewTicker(v.options.ProbeEvery)
	defer ticker.Stop()
	for {
		v.probe(ctx)
		v.write(ctx)
	idle:
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				break idle
			case <-v.queue.ready:
				v.write(ctx)
			}
		}
	}
}

// probe tries what requests need: the limit script, on a counter of its own.
func (v *Valkey) probe(ctx context.Context) {
	timeout := callTimeout
	if v.breaker.open.Load() {
		timeout = connectTimeout // no request waits
	}
	c, err := v.connect()
	if err == nil {
		short, cancel := context.WithTimeout(ctx, timeout)
		ws := []window{{name: "second", limit: 1 << 30, length: time.Second}}
		_, err = limitReply(v.limits.Exec(short, c, limitKeys(probeClient, ws), limitArgs(ws)), ws)
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		v.failed(err)
		return
	}
	if v.breaker.close() {
		v.metrics.up.Set(1)
		v.logger.Info("valkey answers")
	}
}

// connect returns the connection, made first where there is none. It reconnects
// by itself later.
func (v *Valkey) connect() (valkey.Client, error) {
	if c := v.client.Load(); c != nil {
		return *c, nil
	}
	c, err := valkey.NewClient(v.options.client())
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	v.client.Store(&c)
	return c, nil
}

func (v *Valkey) disconnect() {
	v.breaker.open.Store(true)
	if c := v.client.Swap(nil); c != nil {
		(*c).Close()
	}
}

// write writes the records that wait, in batches, while Valkey answers.
func (v *Valkey) write(ctx context.Context) {
	defer func() { v.metrics.queued.Set(float64(v.queue.len())) }()
	for ctx.Err() == nil && !v.breaker.open.Load() {
		batch := v.queue.take(batchSize)
		if len(batch) == 0 {
			return
		}
		err := v.writeBatch(ctx, *v.client.Load(), batch)
		if err != nil {
			v.metrics.dropped.Add(float64(v.queue.giveBack(batch)))
			if ctx.Err() == nil {
				v.failed(err)
			}
			return // the next probe tells whether it is worth another try
		}
	}
}

func (v *Valkey) writeBatch(ctx context.Context, c valkey.Client, batch []api.Demo) error {
	calls := make([]valkey.LuaExec, 0, len(batch))
	for _, d := range batch {
		record, err := encodeRecord(d)
		if err != nil {
			v.metrics.dropped.Inc()
			v.logger.Error("dropped a session record", "err", err)
			continue
		}
		calls = append(calls, valkey.LuaExec{
			Keys: []string{recordKey(d.ID)},
			Args: []string{strconv.FormatUint(d.Revision, 10), record, millis(recordTTL(d, v.options.Kept, time.Now()))},
		})
	}
	short, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	start := time.Now()
	var errs []error
	for _, r := range v.records.ExecMulti(short, c, calls...) {
		errs = append(errs, r.Error())
	}
	err := errors.Join(errs...)
	v.metrics.observe(callPut, start, err)
	if err != nil {
		return fmt.Errorf("write %d records: %w", len(batch), errs[0])
	}
	return nil
}
