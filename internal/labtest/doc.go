// Package labtest tests the whole product on the hosts of a lab: real Raft,
// Podman, CRIU, Valkey and Caddy. Its tests carry the build tag lab and are run
// by `make test-lab`, inside the lab's network.
//
// The tests share one cluster and run one after another. Each leaves the
// cluster whole, and the last looks for what they left behind.
package labtest
