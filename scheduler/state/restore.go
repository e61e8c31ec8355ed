package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// maxRecord bounds one record of a snapshot, in bytes.
const maxRecord = 16 << 20

// Read builds a view from a snapshot. It returns one only if the snapshot is
// complete, undamaged, understood to the last byte and not followed by
// anything.
func Read(r io.Reader) (*View, error) {
	s := &snapshotReader{r: bufio.NewReader(r), sum: sha256.New()}
	v, err := s.read()
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it is cut off")
		}
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return v, nil
}

type snapshotReader struct {
	r       *bufio.Reader
	sum     hash.Hash
	records uint64
	last    byte   // type of the record before
	lastKey []byte // and its key
	buf     bytes.Buffer
}

func (s *snapshotReader) read() (*View, error) {
	head := make([]byte, len(snapshotMagic)+2)
	if err := s.full(head); err != nil {
		return nil, err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("it is no snapshot of this program")
	}
	if format := binary.BigEndian.Uint16(head[len(snapshotMagic):]); format != snapshotFormat {
		return nil, fmt.Errorf("it has format %d; this binary reads %d", format, snapshotFormat)
	}
	kind, payload, err := s.record()
	if err != nil {
		return nil, err
	}
	var header snapshotHeader
	if kind != recordHeader {
		return nil, errors.New("it has no header")
	}
	if err := strict(payload, &header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	x := begin(New())
	x.revision, x.now, x.clusterVersion = header.Revision, header.Time, header.ClusterVersion
	for {
		kind, payload, err := s.record()
		if err != nil {
			return nil, err
		}
		if kind == recordEnd {
			if err := s.end(payload); err != nil {
				return nil, err
			}
			return x.commit(), nil
		}
		if err := s.load(x, kind, payload); err != nil {
			return nil, fmt.Errorf("record %d of type %d: %w", s.records+1, kind, err)
		}
		s.records++
	}
}

// end checks the end mark, the checksum and that nothing follows.
func (s *snapshotReader) end(payload []byte) error {
	var mark snapshotEnd
	if err := strict(payload, &mark); err != nil {
		return fmt.Errorf("end mark: %w", err)
	}
	if mark.Records != s.records {
		return fmt.Errorf("it holds %d records instead of %d", s.records, mark.Records)
	}
	want := s.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(s.r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("it is damaged: the checksum is wrong")
	}
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

func (s *snapshotReader) full(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	_, _ = s.sum.Write(b) // a hash never fails
	return nil
}

// ReadByte lets binary.ReadUvarint read through the checksum.
func (s *snapshotReader) ReadByte() (byte, error) {
	var b [1]byte
	err := s.full(b[:])
	return b[0], err
}

// record returns the next record. The payload is valid until the next call. It
// grows with what is there, not with what the length claims.
func (s *snapshotReader) record() (kind byte, payload []byte, err error) {
	if kind, err = s.ReadByte(); err != nil {
		return 0, nil, err
	}
	size, err := binary.ReadUvarint(s)
	if err != nil {
		return 0, nil, err
	}
	if size > maxRecord {
		return 0, nil, fmt.Errorf("a record of %d bytes is impossible", size)
	}
	s.buf.Reset()
	if _, err := io.CopyN(io.MultiWriter(&s.buf, s.sum), s.r, int64(size)); err != nil {
		return 0, nil, err
	}
	return kind, s.buf.Bytes(), nil
}

// load adds one record to the view. Order is part of the format: it proves
// that no record comes twice.
func (s *snapshotReader) load(x *tx, kind byte, payload []byte) error {
	var key []byte
	var err error
	switch kind {
	case recordTemplate:
		key, err = load(payload, func(t *Template) []byte { return []byte(t.Spec.Name) }, x.putTemplate)
	case recordNode:
		key, err = load(payload, func(n *Node) []byte { return []byte(n.ID) }, x.putNode)
	case recordCheckpoint:
		key, err = load(payload, func(c *Checkpoint) []byte { return c.Key.bytes() }, x.putCheckpoint)
	case recordInstance:
		key, err = load(payload, instanceKey, x.putInstance)
	case recordLease:
		key, err = load(payload, func(l *Lease) []byte { return []byte(l.ID) }, x.putLease)
	case recordClaim:
		key, err = load(payload, func(c *Claim) []byte { return []byte(c.Key) }, x.putClaim)
	default:
		return errors.New("this binary does not know the type")
	}
	if err != nil {
		return err
	}
	if kind < s.last || kind == s.last && bytes.Compare(key, s.lastKey) <= 0 {
		return errors.New("it is out of order")
	}
	s.last, s.lastKey = kind, key
	return nil
}

// load decodes a record and puts it. One without a key is not valid.
func load[T any](payload []byte, key func(*T) []byte, put func(*T)) ([]byte, error) {
	record := new(T)
	if err := strict(payload, record); err != nil {
		return nil, err
	}
	k := key(record)
	if len(k) == 0 {
		return nil, errors.New("it is not valid")
	}
	put(record)
	return k, nil
}

// instanceKey returns no key for a state that no counter exists for.
func instanceKey(i *Instance) []byte {
	if !countable(i.State) {
		return nil
	}
	return []byte(i.ID)
}
