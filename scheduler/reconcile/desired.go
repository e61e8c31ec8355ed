package reconcile

import (
	"cmp"
	"hash/fnv"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// maxSources is how many agents a node is told to fetch a checkpoint from.
	maxSources = 4
	// leastLeft is said of a lease that is over and not yet expired: agents
	// take no lease without any time.
	leastLeft = time.Millisecond
)

// content is a Desired without what changes by being sent: term, generation
// and the time that leases have left.
type content struct {
	desired api.Desired
	ends    map[api.InstanceID]time.Time // of leases
}

// at returns the Desired to send at now.
func (c content) at(term, generation uint64, now time.Time) api.Desired {
	d := c.desired
	d.Term, d.Generation = term, generation
	d.Instances = slices.Clone(d.Instances)
	for n := range d.Instances {
		if end, ok := c.ends[d.Instances[n].ID]; ok {
			d.Instances[n].ExpiresIn = api.Duration(max(leastLeft, end.Sub(now)))
		}
	}
	return d
}

// render renews the content from the view. A content that differs gets a new
// generation; so does a lease that ends at another time, because agents take
// the same generation again as a repetition.
func (l *link) render(now time.Time) {
	v := l.t.o.Log.View()
	l.stale, l.fresh, l.rendered, l.counts = false, true, now, v.NodeCounts(l.id)
	p := renderer{v: v, node: l.id, holds: *l.holds.Load(), holders: l.t.fleet.holdersOf, url: l.t.o.URL}
	if next := p.content(); l.generation == 0 || !reflect.DeepEqual(next, l.content) {
		l.content, l.generation = next, l.t.fleet.generation.Add(1)
	}
	l.noteUnnamed(v)
}

// renderDue reports whether it is time to render what may have changed. What
// starts, leases or ends an instance shows in the counts, and is never late.
func (l *link) renderDue(now time.Time) bool {
	return now.Sub(l.rendered) >= time.Duration(l.t.fleet.pace.Load()) || l.t.o.Log.View().NodeCounts(l.id) != l.counts
}

// noteUnnamed remembers from which generation on a record that must go is not
// named any more. Only then does its absence mean that it is gone.
func (l *link) noteUnnamed(v *state.View) {
	going := map[api.InstanceID]bool{}
	for i := range v.InstancesOn(l.id) {
		if i.State != api.InstanceEnding && i.State != api.InstanceFailed {
			continue
		}
		going[i.ID] = true
		if _, ok := l.unnamed[i.ID]; !ok {
			l.unnamed[i.ID] = l.generation
		}
	}
	maps.DeleteFunc(l.unnamed, func(id api.InstanceID, _ uint64) bool { return !going[id] })
}

// renderer makes the content for one node.
type renderer struct {
	v       *state.View
	node    api.NodeID
	holds   map[api.Digest]bool                                    // that the node holds
	holders func(digest api.Digest) (agents map[api.NodeID]string) // that hold a checkpoint, with their base URLs
	url     func(host string) string
}

func (r renderer) content() content {
	c := content{ends: map[api.InstanceID]time.Time{}}
	n, ok := r.v.Node(r.node)
	if !ok {
		return c // an empty Desired is what a new node has to accept first
	}
	used := map[api.Digest]api.TemplateRef{}
	refs := map[api.TemplateRef]bool{}
	for i := range r.v.InstancesOn(r.node) {
		want, end, ok := r.instance(i)
		if !ok {
			continue
		}
		c.desired.Instances = append(c.desired.Instances, want)
		refs[i.Template] = true
		if !end.IsZero() {
			c.ends[i.ID] = end
		}
		if i.Checkpoint != "" {
			used[i.Checkpoint] = i.Template
		}
	}
	builders := map[api.Digest]api.NodeID{}
	for k := range r.v.Checkpoints() {
		if k.Key.HostClass != n.HostClass {
			continue
		}
		t, ok := r.v.Template(k.Key.Template.Name)
		current := ok && t.Revision == k.Key.Template.Revision
		switch {
		case k.State == api.CheckpointBuilding && k.Builder == r.node && current:
			c.desired.Builds = append(c.desired.Builds, api.Build{Template: k.Key.Template, Attempt: k.Attempt})
			refs[k.Key.Template] = true
		case k.State == api.CheckpointReady:
			builders[k.Digest] = k.Builder
			if current && n.Restores {
				used[k.Digest] = k.Key.Template
			}
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(used)) {
		c.desired.Checkpoints = append(c.desired.Checkpoints, api.CheckpointSource{
			Digest: digest, For: used[digest], Sources: r.sources(digest, builders[digest]),
		})
	}
	c.desired.Templates = r.templates(refs)
	return c
}

// instance returns what the node should do about a record, and when its lease
// ends. Records that must go are not named.
func (r renderer) instance(i *state.Instance) (want api.DesiredInstance, end time.Time, ok bool) {
	if _, known := r.v.Template(i.Template.Name); !known {
		return want, end, false
	}
	want = api.DesiredInstance{
		ID: i.ID, Template: i.Template, Checkpoint: i.Checkpoint, Host: i.Host, URL: r.url(i.Host), State: api.InstanceWarm,
	}
	switch i.State {
	case api.InstancePending, api.InstanceWarm:
		return want, end, true
	case api.InstanceLeased:
		l, known := r.v.Lease(i.Lease)
		if !known || l.State.Ended() || l.Instance != i.ID {
			return want, end, false
		}
		want.State, want.Epoch = api.InstanceLeased, l.Epoch
		return want, l.ExpiresAt, true
	default:
		return want, end, false
	}
}

// templates returns the specs for refs. The state keeps the current spec only,
// so it stands for older revisions too: their instances have started already.
func (r renderer) templates(refs map[api.TemplateRef]bool) []api.TemplateRevision {
	var all []api.TemplateRevision
	for ref := range refs {
		t, ok := r.v.Template(ref.Name)
		if ok {
			all = append(all, api.TemplateRevision{Template: t.Spec, Revision: ref.Revision})
		}
	}
	slices.SortFunc(all, func(a, b api.TemplateRevision) int {
		return cmp.Or(cmp.Compare(a.Template.Name, b.Template.Name), cmp.Compare(a.Revision, b.Revision))
	})
	return all
}

// sources returns the agents from which the node can fetch a checkpoint: none
// once it holds it, the builder first, and of the others each node is told
// different ones, so that a large fleet does not fetch from the same few.
func (r renderer) sources(digest api.Digest, builder api.NodeID) []string {
	if r.holds[digest] {
		return nil
	}
	holders := r.holders(digest)
	delete(holders, r.node)
	var urls []string
	// The builder is named also before it said that it holds the checkpoint: a
	// new leader asks it last, and a node without any source fails at once.
	if b, ok := r.v.Node(builder); ok && builder != r.node && b.Status == api.NodeUp {
		urls = append(urls, b.URL)
	}
	delete(holders, builder)
	others := slices.SortedFunc(maps.Keys(holders), func(a, b api.NodeID) int {
		return cmp.Or(cmp.Compare(r.distance(a), r.distance(b)), cmp.Compare(a, b))
	})
	for _, id := range others {
		if n, ok := r.v.Node(id); ok && n.Status == api.NodeUp && len(urls) < maxSources {
			urls = append(urls, holders[id])
		}
	}
	return urls
}

// distance orders other nodes differently for each node.
func (r renderer) distance(other api.NodeID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(string(r.node) + "\x00" + string(other))) // a hash never fails
	return h.Sum64()
}

// ready returns the checkpoints that a node can restore from.
func ready(o api.Observed) map[api.Digest]bool {
	holds := map[api.Digest]bool{}
	for _, c := range o.Checkpoints {
		if c.State == api.CheckpointReady {
			holds[c.Digest] = true
		}
	}
	return holds
}
