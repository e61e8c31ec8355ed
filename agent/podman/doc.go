// Package podman drives Podman and CRIU: create, checkpoint, restore, list and
// remove containers, and prove by a trial that this host can.
//
// Podman is spoken to over its socket through its own client library, never by
// running a command. Every call has a bounded time, because Podman may hang.
// The agent must run on Podman's host as root: a restore links the shared
// pages of a checkpoint into the container's directory.
//
// A restore uses a prepared slot: a container is created from the warm image
// and initialised, which lays down its configuration, then stopped and restored
// in place over shared pages. That is several times faster than importing an
// archive, and it is not touched by Podman's export losing modified files.
//
// No container of this package has capabilities, can gain privileges, is
// restarted by Podman, or can fill the disk with its log.
package podman
