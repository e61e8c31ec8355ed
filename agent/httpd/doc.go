// Package httpd serves the agent's HTTP API: what the leader desires and what
// is observed, checkpoints for peers, health and metrics.
//
// Everything below /v1 needs the token of the cluster.
package httpd
