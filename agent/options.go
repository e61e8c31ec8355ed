package agent

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/agent/pool"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/logging"
)

// Options configure an agent. The zero value is not useful: start from
// [DefaultOptions].
type Options struct {
	ID        api.NodeID `json:"id" help:"name of this node, unique in the cluster"`
	DataDir   string     `json:"data_dir" help:"directory for records and checkpoints"`
	TokenFile string     `json:"token_file" help:"file with the token that members of the cluster share"`
	Runtime   string     `json:"runtime" help:"podman, or page: a built-in page without containers, for development only"`
	Capacity  int        `json:"capacity" help:"instances on this node at most"`
	Starts    int        `json:"starts" help:"instances that are started at the same time"`

	HTTP        HTTPOptions       `json:"http"`
	Gossip      GossipOptions     `json:"gossip"`
	Podman      PodmanOptions     `json:"podman"`
	Ports       PortOptions       `json:"ports"`
	Checkpoints CheckpointOptions `json:"checkpoints"`
	Log         logging.Options   `json:"log"`

	StopDeadline api.Duration `json:"stop_deadline" help:"how long an orderly stop may take"`
}

// HTTPOptions configure the API.
type HTTPOptions struct {
	Listen    string `json:"listen" help:"address and port that the API listens on"`
	Advertise string `json:"advertise" help:"address and port at which schedulers and other agents reach the API; instances are published on the same address"`
}

// GossipOptions configure discovery.
type GossipOptions struct {
	Listen    string   `json:"listen" help:"address and port that gossip listens on"`
	Advertise string   `json:"advertise" help:"address and port at which other members reach gossip"`
	Join      []string `json:"join" help:"addresses of some members, to find the rest"`
	KeyFile   string   `json:"key_file" help:"file with the gossip key: 32 bytes in base64"`
}

// PodmanOptions configure the runtime podman.
type PodmanOptions struct {
	Socket string `json:"socket" help:"path of Podman's socket"`
}

// PortOptions bound the ports on which instances are published.
type PortOptions struct {
	First int `json:"first" help:"first port of the instances"`
	Last  int `json:"last" help:"last port of the instances"`
}

// CheckpointOptions configure how checkpoints are kept and fetched.
type CheckpointOptions struct {
	PagesDir    string    `json:"pages_dir" help:"directory for unpacked pages, best on a tmpfs; default: below data_dir"`
	DiskReserve api.Bytes `json:"disk_reserve" help:"free disk that builds, fetches and starts never use up"`
	Transfers   int       `json:"transfers" help:"blobs that are fetched at the same time"`
	Bandwidth   api.Bytes `json:"bandwidth" help:"bytes per second of one transfer at most; 0 is no limit"`
}

// The runtimes.
const (
	RuntimePodman = "podman"
	RuntimePage   = "page"
)

// DefaultOptions returns the options that everything not configured has.
func DefaultOptions() Options {
	return Options{
		DataDir:      "/var/lib/demo-multiplexer/agent",
		Runtime:      RuntimePodman,
		Capacity:     64,
		Starts:       4,
		HTTP:         HTTPOptions{Listen: ":7070"},
		Gossip:       GossipOptions{Listen: ":7946"},
		Podman:       PodmanOptions{Socket: "/run/podman/podman.sock"},
		Ports:        PortOptions{First: 20000, Last: 29999},
		Checkpoints:  CheckpointOptions{DiskReserve: 1 << 30, Transfers: 2},
		Log:          logging.Defaults(),
		StopDeadline: api.Duration(15 * time.Second),
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
	check(api.ValidName(string(o.ID)), "id", "must be a lower-case DNS label such as a1")
	check(o.DataDir != "", "data_dir", "must name a directory")
	check(o.TokenFile != "", "token_file", "must name a file")
	check(o.Runtime == RuntimePodman || o.Runtime == RuntimePage, "runtime", "must be podman or page")
	check(o.Runtime != RuntimePodman || filepath.IsAbs(o.Podman.Socket), "podman.socket", "must be an absolute path")
	check(o.Capacity > 0, "capacity", "must be above 0")
	check(o.Starts > 0, "starts", "must be above 0")
	for field, address := range map[string]string{"http.listen": o.HTTP.Listen, "gossip.listen": o.Gossip.Listen} {
		check(validListen(address), field, "must be an address and port such as 0.0.0.0:7070, not %q", address)
	}
	for field, address := range map[string]string{"http.advertise": o.HTTP.Advertise, "gossip.advertise": o.Gossip.Advertise} {
		a, err := netip.ParseAddrPort(address)
		check(err == nil && !a.Addr().IsUnspecified(), field, "must be an IP address and port that other members reach, not %q", address)
	}
	if err := o.portRange().Validate(); err != nil {
		check(false, "ports", "%v", err)
	} else {
		check(o.Ports.Last-o.Ports.First+1 >= o.Capacity, "ports", "must have room for %d instances", o.Capacity)
	}
	check(o.Checkpoints.Transfers > 0, "checkpoints.transfers", "must be above 0")
	check(o.Checkpoints.DiskReserve >= 0, "checkpoints.disk_reserve", "must not be negative")
	check(o.Checkpoints.Bandwidth >= 0, "checkpoints.bandwidth", "must not be negative")
	check(o.StopDeadline.D() >= time.Second, "stop_deadline", "must be at least 1s")
	if _, err := logging.New(io.Discard, o.Log); err != nil {
		check(false, "log", "is wrong: %v", err)
	}
	return api.InvalidFields("the configuration is not valid", fields)
}

func validListen(address string) bool {
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	_, err := netip.ParseAddrPort(address)
	return err == nil
}

func (o *Options) portRange() pool.PortRange {
	return pool.PortRange{First: o.Ports.First, Last: o.Ports.Last}
}

// address returns where instances are published.
func (o *Options) address() (netip.Addr, error) {
	a, err := netip.ParseAddrPort(o.HTTP.Advertise)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("http.advertise: %w", err)
	}
	return a.Addr(), nil
}

func (o *Options) pagesDir() string {
	if o.Checkpoints.PagesDir != "" {
		return o.Checkpoints.PagesDir
	}
	return filepath.Join(o.DataDir, "pages")
}

// gossipKey reads the key; without a file gossip is not encrypted.
func (o *Options) gossipKey() ([]byte, error) {
	if o.Gossip.KeyFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(o.Gossip.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("gossip key %s must be 32 bytes in base64", o.Gossip.KeyFile)
	}
	return key, nil
}
