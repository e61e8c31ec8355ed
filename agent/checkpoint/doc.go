// Package checkpoint keeps checkpoints on the local disk and fetches them from
// peers by digest.
//
// A checkpoint is a manifest and the blobs that it names. The manifest's own
// SHA-256 is the checkpoint's digest, so whoever has the digest can verify
// everything, from whomever it came. Files become visible by rename, after
// they were written, hashed and synced. Nothing of another host class is kept.
//
// [Store] may be used from several goroutines. It starts none.
package checkpoint
