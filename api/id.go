package api

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

// TemplateName names what is demoed, for example "wordpress".
type TemplateName string

// NodeID names a host that runs an agent. It is unique in a cluster.
type NodeID string

// ServerID names a scheduler. It is unique in a cluster.
type ServerID string

// EdgeID names a Caddy that visitors reach.
type EdgeID string

// InstanceID names one container on one node.
type InstanceID string

// LeaseID is a visitor's key to a demo: 128 random bits. Whoever knows it may
// read, extend and release the demo, so it is treated as a secret in logs.
type LeaseID string

// HostClass names a set of hosts on which one checkpoint can be restored.
type HostClass string

// Digest is the lower-case hexadecimal SHA-256 of some content.
type Digest string

// idEncoding spells random bits in lower case without padding, so that an ID
// is also a valid DNS label and path element.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// randomID returns n random bytes spelled with prefix.
func randomID(prefix string, n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails since Go 1.24: it crashes the program instead
	return prefix + idEncoding.EncodeToString(b)
}

// NewLeaseID returns a fresh unguessable lease ID.
func NewLeaseID() LeaseID { return LeaseID(randomID("", 16)) }

// NewInstanceID returns a fresh instance ID.
func NewInstanceID() InstanceID { return InstanceID(randomID("i-", 10)) }

// NewHostLabel returns a fresh unguessable DNS label for an instance.
func NewHostLabel() string { return randomID("d-", 16) }

// NewRequestID returns an ID that ties a reply to the log lines about it.
func NewRequestID() string { return randomID("", 10) }

var (
	namePattern  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	leasePattern = regexp.MustCompile(`^[a-z2-7]{26}$`)
)

// ValidName reports whether s can name a template, node, server or edge: a
// lower-case DNS label.
func ValidName(s string) bool { return namePattern.MatchString(s) }

// ParseLeaseID checks that s has the form of a lease ID. The error has code
// [CodeNotFound]: an ID that cannot exist is answered like one that does not.
func ParseLeaseID(s string) (LeaseID, error) {
	if !leasePattern.MatchString(s) {
		return "", Errorf(CodeNotFound, "no demo has this id; acquire a new one with POST /api/v1/demo/acquire")
	}
	return LeaseID(s), nil
}

// ParseDigest checks that s is a SHA-256 in lower-case hexadecimal.
func ParseDigest(s string) (Digest, error) {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%q is not a SHA-256 in lower-case hexadecimal", s)
	}
	return Digest(s), nil
}
