package scheduler

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/logging"
)

// Options configure a scheduler. The zero value is not useful: start from
// [DefaultOptions].
type Options struct {
	ID      api.ServerID `json:"id" help:"name of this scheduler, unique in the cluster"`
	DataDir string       `json:"data_dir" help:"directory for the Raft log and snapshots"`

	HTTP   HTTPOptions   `json:"http"`
	Raft   RaftOptions   `json:"raft"`
	Gossip GossipOptions `json:"gossip"`
	Tokens TokenOptions  `json:"tokens"`
	Store  StoreOptions  `json:"store"`
	Limits LimitOptions  `json:"limits"`
	Public PublicOptions `json:"public"`
	Edges  []EdgeOptions `json:"edges"`
	Timing TimingOptions `json:"timing"`

	Log logging.Options `json:"log"`
}

// HTTPOptions configure the API.
type HTTPOptions struct {
	Listen         string   `json:"listen" help:"address and port that the API listens on"`
	Advertise      string   `json:"advertise" help:"address and port at which other members reach the API"`
	TrustedProxies []string `json:"trusted_proxies" help:"prefixes of load balancers whose X-Forwarded-For is believed"`
	CORSOrigins    []string `json:"cors_origins" help:"origins of web sites that may call the public API from a browser"`
	MaxStreams     int      `json:"max_streams" help:"status streams at most"`
}

// RaftOptions configure consensus.
type RaftOptions struct {
	Listen          string `json:"listen" help:"address and port that Raft listens on"`
	Advertise       string `json:"advertise" help:"address and port at which other schedulers reach Raft"`
	BootstrapExpect int    `json:"bootstrap_expect" help:"number of schedulers that found a new cluster together; 1 founds one alone"`
}

// GossipOptions configure discovery.
type GossipOptions struct {
	Listen    string   `json:"listen" help:"address and port that gossip listens on"`
	Advertise string   `json:"advertise" help:"address and port at which other members reach gossip"`
	Join      []string `json:"join" help:"addresses of some members, to find the rest"`
	KeyFile   string   `json:"key_file" help:"file with the gossip key: 32 bytes in base64"`
}

// TokenOptions name the files that hold the tokens.
type TokenOptions struct {
	ClusterFile string `json:"cluster_file" help:"file with the token that members of the cluster share"`
	AdminFile   string `json:"admin_file" help:"file with the token of operators"`
}

// The kinds of store.
const (
	StoreValkey   = "valkey"
	StoreEmbedded = "embedded"
)

// StoreOptions configure the store of rate limits and session records.
type StoreOptions struct {
	Kind         string   `json:"kind" help:"valkey, or embedded: in this process, for development only"`
	Addresses    []string `json:"addresses" help:"addresses of Valkey"`
	Username     string   `json:"username" help:"user name at Valkey"`
	PasswordFile string   `json:"password_file" help:"file with the password at Valkey"`
	WhenDown     string   `json:"when_down" help:"rate limits while Valkey is down: local or refuse"`
}

// LimitOptions bound what one client may acquire. Zero switches a limit off.
type LimitOptions struct {
	PerHour int64 `json:"per_hour" help:"acquires per client and hour; 0 is no limit"`
	PerDay  int64 `json:"per_day" help:"acquires per client and day; 0 is no limit"`
}

// PublicOptions say what the visitors' URLs look like.
type PublicOptions struct {
	Scheme string `json:"scheme" help:"http or https"`
	Domain string `json:"domain" help:"parent domain of the demos' host names"`
	Port   int    `json:"port" help:"port in the visitors' URLs; 0 is the scheme's own"`
}

// The kinds of edge.
const (
	EdgeCaddy   = "caddy"
	EdgeBuiltin = "builtin"
)

// EdgeOptions name one edge.
type EdgeOptions struct {
	ID     api.EdgeID `json:"id"`
	Kind   string     `json:"kind"`   // caddy, or builtin: in this process, for development only
	Admin  string     `json:"admin"`  // Caddy: base URL of its admin API, or unix:///path
	Listen []string   `json:"listen"` // addresses that visitors reach
}

// TimingOptions tune how fast the cluster reacts.
type TimingOptions struct {
	NodeGrace    api.Duration `json:"node_grace" help:"how long a node may be unreachable before it counts as down"`
	LeaderGrace  api.Duration `json:"leader_grace" help:"what every lease has left at least after a change of leader"`
	EndedKept    api.Duration `json:"ended_kept" help:"how long an ended demo is remembered"`
	StopDeadline api.Duration `json:"stop_deadline" help:"how long an orderly stop may take"`
}

// DefaultOptions returns the options that everything not configured has.
func DefaultOptions() Options {
	return Options{
		DataDir: "/var/lib/demo-multiplexer/scheduler",
		HTTP:    HTTPOptions{Listen: ":8080", MaxStreams: 10_000},
		Raft:    RaftOptions{Listen: ":7000", BootstrapExpect: 3},
		Gossip:  GossipOptions{Listen: ":7946"},
		Store:   StoreOptions{Kind: StoreValkey, Addresses: []string{"127.0.0.1:6379"}, WhenDown: "local"},
		Limits:  LimitOptions{PerHour: 20, PerDay: 60},
		Public:  PublicOptions{Scheme: "http", Domain: "demo.localhost"},
		Timing: TimingOptions{
			NodeGrace:    api.Duration(5 * time.Second),
			LeaderGrace:  api.Duration(10 * time.Second),
			EndedKept:    api.Duration(time.Hour),
			StopDeadline: api.Duration(15 * time.Second),
		},
		Log: logging.Defaults(),
	}
}

// Validate reports everything that is wrong with o in one error with
// [api.CodeInvalid].
func (o *Options) Validate() error {
	var fields []api.FieldError
	check := func(ok bool, field, reason string, args ...any) {
		if !ok {
			fields = append(fields, api.FieldError{Field: field, Reason: fmt.Sprintf(reason, args...)})
		}
	}
	check(api.ValidName(string(o.ID)), "id", "must be a lower-case DNS label such as s1")
	check(o.DataDir != "", "data_dir", "must name a directory")
	for field, address := range map[string]string{"http.listen": o.HTTP.Listen, "raft.listen": o.Raft.Listen, "gossip.listen": o.Gossip.Listen} {
		check(validListen(address), field, "must be an address and port such as 0.0.0.0:8080, not %q", address)
	}
	for field, address := range map[string]string{"http.advertise": o.HTTP.Advertise, "raft.advertise": o.Raft.Advertise, "gossip.advertise": o.Gossip.Advertise} {
		_, err := netip.ParseAddrPort(address)
		check(err == nil, field, "must be an IP address and port that other members reach, not %q", address)
	}
	for _, p := range o.HTTP.TrustedProxies {
		_, err := netip.ParsePrefix(p)
		check(err == nil, "http.trusted_proxies", "%q is not a prefix such as 10.0.0.0/8", p)
	}
	check(o.HTTP.MaxStreams > 0, "http.max_streams", "must be above 0")
	check(o.Raft.BootstrapExpect >= 1 && o.Raft.BootstrapExpect <= 7, "raft.bootstrap_expect", "must be from 1 to 7; 3 or 5 survive the loss of a machine")
	check(o.Tokens.ClusterFile != "", "tokens.cluster_file", "must name a file")
	check(o.Tokens.AdminFile != "", "tokens.admin_file", "must name a file")
	check(o.Store.Kind == StoreValkey || o.Store.Kind == StoreEmbedded, "store.kind", "must be valkey or embedded")
	check(o.Store.Kind != StoreValkey || len(o.Store.Addresses) > 0, "store.addresses", "must name at least one address")
	check(o.Store.WhenDown == "local" || o.Store.WhenDown == "refuse", "store.when_down", "must be local or refuse")
	check(o.Limits.PerHour >= 0 && o.Limits.PerDay >= 0, "limits", "must not be negative")
	check(o.Public.Scheme == "http" || o.Public.Scheme == "https", "public.scheme", "must be http or https")
	check(validDomain(o.Public.Domain), "public.domain", "must be a domain such as demo.example.com")
	check(o.Public.Port >= 0 && o.Public.Port < 65536, "public.port", "must be a port or 0")
	check(len(o.Edges) > 0, "edges", "must name at least one edge, or no visitor reaches a demo")
	seen := map[api.EdgeID]bool{}
	for i, e := range o.Edges {
		field := fmt.Sprintf("edges[%d]", i)
		check(api.ValidName(string(e.ID)) && !seen[e.ID], field+".id", "must be a DNS label that no other edge has")
		seen[e.ID] = true
		check(e.Kind == EdgeCaddy || e.Kind == EdgeBuiltin, field+".kind", "must be caddy or builtin")
		u, err := url.Parse(e.Admin)
		check(e.Kind != EdgeCaddy || err == nil && (u.Scheme == "http" && u.Host != "" || u.Scheme == "unix" && u.Path != ""),
			field+".admin", "must be the URL of Caddy's admin API, such as http://10.0.0.5:2019 or unix:///run/caddy/admin.sock")
		check(len(e.Listen) > 0, field+".listen", "must name at least one address such as :80")
	}
	for field, d := range map[string]api.Duration{"timing.node_grace": o.Timing.NodeGrace, "timing.ended_kept": o.Timing.EndedKept, "timing.stop_deadline": o.Timing.StopDeadline} {
		check(d.D() >= time.Second, field, "must be at least 1s")
	}
	check(o.Timing.LeaderGrace >= 0, "timing.leader_grace", "must not be negative")
	if _, err := logging.New(io.Discard, o.Log); err != nil {
		check(false, "log", "is wrong: %v", err)
	}
	return api.InvalidFields("the configuration is not valid", fields)
}

func validListen(address string) bool {
	host, _, ok := strings.Cut(address, ":")
	if !ok {
		return false
	}
	if host == "" {
		address = "0.0.0.0" + address
	}
	_, err := netip.ParseAddrPort(address)
	return err == nil
}

func validDomain(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if !api.ValidName(label) {
			return false
		}
	}
	return len(domain) <= 200
}

// PublicURL returns the base URL at which visitors reach a host name.
func (o PublicOptions) PublicURL(host string) string {
	u := url.URL{Scheme: o.Scheme, Host: host}
	if o.Port != 0 {
		u.Host = fmt.Sprintf("%s:%d", host, o.Port)
	}
	return u.String()
}
