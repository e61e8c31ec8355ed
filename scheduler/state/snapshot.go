package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"
)

// A snapshot is a magic, a format number (2 bytes, big-endian), records, and
// the SHA-256 of all before it. A record is its type (1 byte), its length
// (uvarint) and JSON: first the header, then every table in order of its keys,
// last the end mark, which counts the records between.
const (
	snapshotMagic  = "demosnap"
	snapshotFormat = 1
)

// The types of records in a snapshot, in the order in which they come.
const (
	recordHeader     byte = 1
	recordTemplate   byte = 2
	recordNode       byte = 3
	recordCheckpoint byte = 4
	recordInstance   byte = 5
	recordLease      byte = 6
	recordClaim      byte = 7
	recordEnd        byte = 255
)

type snapshotHeader struct {
	Revision       uint64    `json:"revision"`
	Time           time.Time `json:"time"`
	ClusterVersion uint32    `json:"cluster_version"`
}

type snapshotEnd struct {
	Records uint64 `json:"records"`
}

// Write writes a snapshot of v to w, as a stream of small writes: give it a
// buffered writer. Equal views give equal bytes.
func Write(w io.Writer, v *View) error {
	s := &snapshotWriter{w: w, sum: sha256.New()}
	s.raw([]byte(snapshotMagic))
	s.raw(binary.BigEndian.AppendUint16(nil, snapshotFormat))
	s.record(recordHeader, snapshotHeader{Revision: v.revision, Time: v.time, ClusterVersion: v.clusterVersion})
	s.records = 0 // the header is not counted
	table(s, recordTemplate, v.Templates())
	table(s, recordNode, v.Nodes())
	table(s, recordCheckpoint, v.Checkpoints())
	table(s, recordInstance, v.Instances())
	table(s, recordLease, v.Leases())
	table(s, recordClaim, all(v.claims, nil))
	s.record(recordEnd, snapshotEnd{Records: s.records})
	s.raw(s.sum.Sum(nil))
	if s.err != nil {
		return fmt.Errorf("write snapshot: %w", s.err)
	}
	return nil
}

// snapshotWriter keeps the first error, so that Write reads like the format.
type snapshotWriter struct {
	w       io.Writer
	sum     hash.Hash
	records uint64
	err     error
}

func (s *snapshotWriter) raw(b []byte) {
	if s.err != nil {
		return
	}
	_, _ = s.sum.Write(b) // a hash never fails
	_, s.err = s.w.Write(b)
}

func (s *snapshotWriter) record(kind byte, value any) {
	payload, err := json.Marshal(value)
	if s.err == nil {
		s.err = err
	}
	s.raw(append(binary.AppendUvarint([]byte{kind}, uint64(len(payload))), payload...))
	s.records++
}

func table[T any](s *snapshotWriter, kind byte, rows iter.Seq[T]) {
	for row := range rows {
		if s.err != nil {
			return
		}
		s.record(kind, row)
	}
}
