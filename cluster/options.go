package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

// Options configure a [Gossip]. Name, Listen, Advertise, Meta and Logger are
// required.
type Options struct {
	Name       string   // unique in the cluster: the ID of the server or node
	Listen     string   // address and port to listen on; ":7946" listens on all addresses
	Advertise  string   // IP address and port at which others reach this member
	Join       []string // addresses and ports of some members
	Key        []byte   // AES key of 16, 24 or 32 bytes; nil: gossip is not encrypted
	Meta       api.MemberMeta
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics

	// Transport replaces the network in tests.
	Transport memberlist.Transport
}

func (o Options) validate() error {
	var fields []api.FieldError
	check := func(ok bool, field, reason string) {
		if !ok {
			fields = append(fields, api.FieldError{Field: field, Reason: reason})
		}
	}
	check(api.ValidName(o.Name), "name", "must be a lower-case DNS label such as s1")
	check(o.Logger != nil, "logger", "must be given")
	switch len(o.Key) {
	case 0, 16, 24, 32:
	default:
		check(false, "key", "must have 16, 24 or 32 bytes")
	}
	if o.Transport == nil {
		_, _, err := splitListen(o.Listen)
		check(err == nil, "listen", "must be an IP address and port such as 0.0.0.0:7946")
		a, err := netip.ParseAddrPort(o.Advertise)
		check(err == nil && !a.Addr().IsUnspecified(), "advertise", "must be an IP address and port that other members reach")
	}
	if _, err := encodeMeta(o.Meta); err != nil {
		check(false, "meta", err.Error())
	}
	return api.InvalidFields("the options of gossip are not valid", fields)
}

func splitListen(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q is not a port", text)
	}
	return host, port, nil
}

// config returns the library's settings.
func (g *Gossip) config() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name = g.o.Name
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.GossipInterval, c.SuspicionMult = gossipInterval, suspicionMult
	c.DeadNodeReclaimTime, c.TCPTimeout = reclaimAfter, streamTimeout
	c.LogOutput = logWriter{g.logger}
	c.Delegate, c.Events, c.Conflict = &delegate{g}, events{g}, events{g}
	c.SecretKey = g.o.Key
	if g.o.Transport != nil {
		c.Transport = g.o.Transport
		return c, nil
	}
	var err error
	if c.BindAddr, c.BindPort, err = splitListen(g.o.Listen); err != nil {
		return nil, err
	}
	advertise, err := netip.ParseAddrPort(g.o.Advertise)
	if err != nil {
		return nil, err
	}
	c.AdvertiseAddr, c.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	return c, nil
}
