package lease

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// maxKey is the longest Idempotency-Key in bytes. The state would take more;
// a UUID needs 36.
const maxKey = 256

// order is an acquire that was understood.
type order struct {
	template    *state.Template
	ttl, maxTTL api.Duration
	key         string // empty: none
	fingerprint string // of the request, to refuse another one under the same key
	deadline    time.Time
}

func (o order) name() api.TemplateName { return o.template.Spec.Name }

// understand checks a call and fills in what it left open.
func (s *Service) understand(ctx context.Context, call api.AcquireCall) (order, error) {
	if !validKey(call.IdempotencyKey) {
		return order{}, invalidField("Idempotency-Key", fmt.Sprintf("must have at most %d characters, all of them printable ASCII", maxKey))
	}
	t, err := s.template(ctx, call.Template)
	if err != nil {
		return order{}, err
	}
	ttl, err := ttlWithin(t, call.TTL)
	if err != nil {
		return order{}, err
	}
	fingerprint, err := fingerprint(call.AcquireRequest)
	if err != nil {
		return order{}, err
	}
	return order{
		template: t, ttl: ttl, maxTTL: bounds(t).Max, key: call.IdempotencyKey, fingerprint: fingerprint,
		deadline: time.Now().Add(min(call.Wait, maxWait)),
	}, nil
}

func validKey(key string) bool {
	return len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

// fingerprint identifies a request as its caller wrote it. What was left open
// stays open in it, so that a new template or default does not turn a repeated
// request into another one.
func fingerprint(r api.AcquireRequest) (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode acquire request: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// template returns the template that a call names, or the only one there is.
// A replica that has just begun to lead may not know it yet, so a miss is
// believed only once the leader is sure.
func (s *Service) template(ctx context.Context, name api.TemplateName) (*state.Template, error) {
	t, err := findTemplate(s.log.View(), name)
	if api.CodeOf(err) != api.CodeNotFound {
		return t, err
	}
	if err := s.log.VerifyLeader(ctx); err != nil {
		return nil, err
	}
	return findTemplate(s.log.View(), name)
}

func findTemplate(v *state.View, name api.TemplateName) (*state.Template, error) {
	if name == "" {
		return onlyTemplate(v)
	}
	if t, ok := v.Template(name); ok {
		return t, nil
	}
	if !api.ValidName(string(name)) { // not repeated: it can be anything
		return nil, api.Errorf(api.CodeNotFound, "there is no template of this name")
	}
	return nil, api.Errorf(api.CodeNotFound, "there is no template %s", name)
}

// maxNamed bounds the templates that an error lists.
const maxNamed = 10

func onlyTemplate(v *state.View) (*state.Template, error) {
	var only *state.Template
	var names []string
	for t := range v.Templates() {
		only = t
		names = append(names, string(t.Spec.Name))
		if len(names) > maxNamed {
			names[maxNamed] = "and others"
			break
		}
	}
	switch len(names) {
	case 0:
		return nil, api.Errorf(api.CodeNotFound, "this cluster has no template yet; an operator adds one with democtl template apply")
	case 1:
		return only, nil
	default:
		return nil, invalidField("template", "must be named, because there are several: "+strings.Join(names, ", "))
	}
}

// bounds returns the bounds of leases of a template. Defaults are filled in
// when a template is applied; here they only make sure.
func bounds(t *state.Template) api.TTL { return t.Spec.WithDefaults().TTL }

// ttlWithin returns the duration that was asked for, or the template's default.
func ttlWithin(t *state.Template, asked api.Duration) (api.Duration, error) {
	b := bounds(t)
	if asked == 0 {
		return b.Default, nil
	}
	if asked.D() < api.MinTTL || asked > b.Max {
		return 0, invalidField("ttl", fmt.Sprintf("must be from %s to %s", api.MinTTL, b.Max))
	}
	return asked, nil
}
