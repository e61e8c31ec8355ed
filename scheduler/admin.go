package scheduler

import (
	"context"
	"slices"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/version"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// The methods below answer operators from this replica: they implement
// httpd.Cluster.

// Status says who leads, who is there and how the parts do.
func (p *process) Status() api.ClusterStatus {
	_, leader := p.consensus.Leader()
	s := api.ClusterStatus{
		Server: p.o.ID, Leader: leader, Term: p.consensus.Term(), Applied: p.consensus.AppliedIndex(),
		StateTime: p.consensus.View().Time(), Servers: []api.ServerStatus{},
		Edges: p.reconciler.Edges(), Store: p.store.Status(), Version: version.String(),
	}
	seen := schedulersOf(p.gossip.Members())
	for _, server := range p.consensus.Servers() {
		status := api.ServerStatus{ID: server.ID, Address: server.Address, Voter: server.Voter, Leader: server.ID == leader}
		for _, m := range seen {
			if m.Name == string(server.ID) {
				status.URL, status.Alive = "http://"+m.Meta.HTTP, m.Alive
			}
		}
		s.Servers = append(s.Servers, status)
	}
	return s
}

// LeaderURL returns where another scheduler that leads is reached.
func (p *process) LeaderURL() (string, bool) {
	self, leader := p.consensus.Leader()
	if self || leader == "" {
		return "", false
	}
	for _, m := range schedulersOf(p.gossip.Members()) {
		if m.Name == string(leader) && m.Meta.HTTP != "" {
			return "http://" + m.Meta.HTTP, true
		}
	}
	return "", false
}

// Nodes lists the nodes.
func (p *process) Nodes() []api.NodeStatus {
	v := p.consensus.View()
	list := []api.NodeStatus{}
	for n := range v.Nodes() {
		counts := v.NodeCounts(n.ID)
		list = append(list, api.NodeStatus{
			ID: n.ID, URL: n.URL, Status: n.Status, HostClass: n.HostClass, Restores: n.Restores, Reason: n.Reason,
			Capacity: n.Capacity, Instances: counts.Total(), Leased: counts.Leased, Versions: n.Versions, ChangedAt: n.ChangedAt,
		})
	}
	return list
}

// shownID is how many characters of a lease ID operators see: enough to find a
// demo that a visitor names, too few to open it.
const shownID = 6

// Leases lists the leases that are remembered, without what opens them.
func (p *process) Leases() []api.LeaseStatus {
	v := p.consensus.View()
	list := []api.LeaseStatus{}
	for l := range v.Leases() {
		s := api.LeaseStatus{
			ID: string(l.ID[:min(shownID, len(l.ID))]) + "…", State: l.State, Template: l.Template.Name, Instance: l.Instance,
			Host: l.Host, Epoch: l.Epoch, CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt,
		}
		if i, ok := v.Instance(l.Instance); ok {
			s.Node = i.Node
		}
		list = append(list, s)
	}
	return list
}

// Instances lists the instances, without their credentials.
func (p *process) Instances() []api.InstanceStatus {
	list := []api.InstanceStatus{}
	for i := range p.consensus.View().Instances() {
		list = append(list, api.InstanceStatus{
			ID: i.ID, Template: i.Template, Node: i.Node, State: i.State, Host: i.Host, Address: i.Address,
			Checkpoint: i.Checkpoint, Reason: i.Reason, Stages: i.Stages, CreatedAt: i.CreatedAt,
		})
	}
	return list
}

// Templates lists the templates in their current revisions.
func (p *process) Templates() []api.TemplateStatus {
	v := p.consensus.View()
	stats := p.leases.PoolStats().Templates
	list := []api.TemplateStatus{}
	for t := range v.Templates() {
		list = append(list, templateStatus(v, t, stats))
	}
	return list
}

// Template returns one template. The error has code not_found.
func (p *process) Template(name api.TemplateName) (api.TemplateStatus, error) {
	v := p.consensus.View()
	t, ok := v.Template(name)
	if !ok {
		return api.TemplateStatus{}, api.Errorf(api.CodeNotFound, "there is no template %q; GET /api/v1/templates lists them", name)
	}
	return templateStatus(v, t, p.leases.PoolStats().Templates), nil
}

func templateStatus(v *state.View, t *state.Template, stats []api.TemplateStats) api.TemplateStatus {
	s := api.TemplateStatus{Template: t.Spec, Revision: t.Revision}
	if i := slices.IndexFunc(stats, func(s api.TemplateStats) bool { return s.Template == t.Spec.Name }); i >= 0 {
		s.Stats = stats[i]
	}
	for c := range v.CheckpointsOf(t.Ref()) {
		s.Checkpoints = append(s.Checkpoints, api.CheckpointStatus{
			HostClass: c.Key.HostClass, State: c.State, Builder: c.Builder, Digest: c.Digest, Size: c.Size, Reason: c.Reason, Stages: c.Stages,
		})
	}
	return s
}

// ApplyTemplate makes t the current revision of its template.
func (p *process) ApplyTemplate(ctx context.Context, t api.Template) (api.TemplateStatus, error) {
	t = t.WithDefaults()
	if err := t.Validate(); err != nil {
		return api.TemplateStatus{}, err
	}
	result, err := p.consensus.Propose(ctx, state.PutTemplate{Spec: t})
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return api.TemplateStatus{}, err
	}
	p.logger.Info("template applied", "template", t.Name, "revision", result.Template.Revision)
	return p.Template(t.Name)
}
