package session

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/boss/demo-multiplexer/api"
)

// limitScript counts one request in every window, or in none if one is used
// up. KEYS are the counters; ARGV holds limit and length in milliseconds of
// each. It returns whether the request is allowed, then count and time to
// reset of each. A counter that lost its expiry gets a new one, or the client
// would be locked out for good.
const limitScript = `
local counts, resets, allowed = {}, {}, 1
for i, key in ipairs(KEYS) do
  counts[i] = tonumber(redis.call('GET', key) or '0') or 0
  resets[i] = redis.call('PTTL', key)
  if resets[i] < 0 then
    if counts[i] > 0 then redis.call('PEXPIRE', key, ARGV[2 * i]) end
    resets[i] = tonumber(ARGV[2 * i])
  end
  if counts[i] >= tonumber(ARGV[2 * i - 1]) then allowed = 0 end
end
local reply = {allowed}
for i, key in ipairs(KEYS) do
  if allowed == 1 then
    counts[i] = redis.call('INCR', key)
    if counts[i] == 1 then redis.call('PEXPIRE', key, ARGV[2 * i]) end
  end
  reply[2 * i] = counts[i]
  reply[2 * i + 1] = resets[i]
end
return reply
`

// recordScript stores a record unless a newer one is there already: two
// schedulers may write about one demo, in any order.
const recordScript = `
local have = redis.call('HGET', KEYS[1], 'revision')
if have and tonumber(have) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'demo', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`

// limitArgs are the ARGV of limitScript.
func limitArgs(ws []window) []string {
	args := make([]string, 0, 2*len(ws))
	for _, w := range ws {
		args = append(args, strconv.FormatInt(w.limit, 10), millis(w.length))
	}
	return args
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// limitReply decodes what limitScript returned.
func limitReply(r valkey.ValkeyResult, ws []window) (api.Quota, error) {
	ints, err := r.AsIntSlice()
	if err != nil {
		return api.Quota{}, err
	}
	if len(ints) != 1+2*len(ws) {
		return api.Quota{}, fmt.Errorf("limit script returned %d numbers for %d windows", len(ints), len(ws))
	}
	q := api.Quota{Allowed: ints[0] == 1, Windows: make([]api.QuotaWindow, len(ws))}
	for i, w := range ws {
		q.Windows[i] = w.quota(ints[1+2*i], time.Duration(ints[2+2*i])*time.Millisecond)
	}
	return q, nil
}

// errDown means that Valkey is known to be down and was not asked.
var errDown = errors.New("valkey is down")
