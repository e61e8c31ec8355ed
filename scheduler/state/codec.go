package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// A log entry holds one or more commands:
//
//	format    1 byte
//	count     uvarint
//	commands  kind (2), payload version (2), leader time in ns since 1970 (8),
//	          payload length (uvarint), payload (JSON)
//	checksum  CRC-32C of all before it (4)
//
// Integers are big-endian.
const (
	entryFormat = 1
	// MaxBatch is how many commands one log entry may hold.
	MaxBatch = 256
	// maxPayload bounds one command, in bytes. The largest, a template or a list
	// of expired leases, stays far below it.
	maxPayload = 1 << 20
)

// Leader times outside of these years come from a broken clock and would leave
// the range of the time indexes.
const (
	earliestYear = 1970
	latestYear   = 2200
)

// checksum uses the polynomial that processors compute in hardware.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Packed is a command as it is written to the log.
type Packed struct {
	kind    Kind
	version uint16
	payload []byte
}

// Kind returns the kind of the command.
func (p Packed) Kind() Kind { return p.kind }

// Size is about how many bytes the command takes in the log.
func (p Packed) Size() int { return len(p.payload) + 2 + 2 + 8 + binary.MaxVarintLen32 }

// Pack encodes a command for the log. The error is an [*api.Error] with
// [api.CodeInvalid]. A command that could be written but not read again would
// stop every replica for good, so Pack also reads back what it wrote.
func Pack(cmd Command) (Packed, error) {
	info, ok := cmd.Kind().info()
	if !ok {
		return Packed{}, api.Errorf(api.CodeInvalid, "the log knows no command of kind %d", cmd.Kind())
	}
	payload, err := json.Marshal(cmd)
	if err != nil {
		return Packed{}, api.Errorf(api.CodeInvalid, "the command %s cannot be written: %w", info.name, err)
	}
	if len(payload) > maxPayload {
		return Packed{}, api.Errorf(api.CodeInvalid, "the command %s has %d bytes; the log takes %d", info.name, len(payload), maxPayload)
	}
	if _, err := info.decode(payload); err != nil {
		return Packed{}, api.Errorf(api.CodeInvalid, "the command %s could not be read back: %w", info.name, err)
	}
	return Packed{kind: info.kind, version: info.version, payload: payload}, nil
}

// Encode returns the log entry with commands proposed at the leader's time at.
// The error is an [*api.Error] with [api.CodeInvalid].
func Encode(at time.Time, commands []Packed) ([]byte, error) {
	if len(commands) == 0 || len(commands) > MaxBatch {
		return nil, api.Errorf(api.CodeInvalid, "a log entry holds 1 to %d commands, not %d", MaxBatch, len(commands))
	}
	if !validTime(at) {
		return nil, api.Errorf(api.CodeInvalid, "the clock of this scheduler says %s; set it", at.Format(time.RFC3339))
	}
	size := 1 + binary.MaxVarintLen16 + crc32.Size
	for _, p := range commands {
		size += p.Size()
	}
	b := make([]byte, 0, size)
	b = append(b, entryFormat)
	b = binary.AppendUvarint(b, uint64(len(commands)))
	for _, p := range commands {
		b = binary.BigEndian.AppendUint16(b, uint16(p.kind))
		b = binary.BigEndian.AppendUint16(b, p.version)
		b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
		b = binary.AppendUvarint(b, uint64(len(p.payload)))
		b = append(b, p.payload...)
	}
	return binary.BigEndian.AppendUint32(b, checksum(b)), nil
}

func validTime(t time.Time) bool {
	year := t.UTC().Year()
	return year >= earliestYear && year < latestYear
}

// errTruncated says that an entry ends too early.
var errTruncated = errors.New("the entry is cut off")

// Decode reads a log entry. Whatever this binary does not understand to the
// last byte is an error, and the caller must then stop: a replica that skips a
// command is no replica.
func Decode(entry []byte) ([]Envelope, error) {
	body := len(entry) - crc32.Size
	if body < 1 {
		return nil, errTruncated
	}
	if got, want := checksum(entry[:body]), binary.BigEndian.Uint32(entry[body:]); got != want {
		return nil, fmt.Errorf("the entry is damaged: checksum %08x, not %08x", got, want)
	}
	if entry[0] != entryFormat {
		return nil, fmt.Errorf("the entry has format %d; this binary reads %d", entry[0], entryFormat)
	}
	b := entry[1:body]
	count, n := binary.Uvarint(b)
	if n <= 0 || count == 0 || count > MaxBatch {
		return nil, fmt.Errorf("the entry holds %d commands; 1 to %d are possible", count, MaxBatch)
	}
	b = b[n:]
	envelopes := make([]Envelope, 0, count)
	for range count {
		e, rest, err := decodeEnvelope(b)
		if err != nil {
			return nil, fmt.Errorf("command %d of %d: %w", len(envelopes)+1, count, err)
		}
		envelopes = append(envelopes, e)
		b = rest
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes follow the last command", len(b))
	}
	return envelopes, nil
}

func decodeEnvelope(b []byte) (Envelope, []byte, error) {
	const fixed = 2 + 2 + 8
	if len(b) < fixed {
		return Envelope{}, nil, errTruncated
	}
	kind, version := Kind(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint16(b[2:])
	at := time.Unix(0, int64(binary.BigEndian.Uint64(b[4:]))).UTC()
	size, n := binary.Uvarint(b[fixed:])
	if n <= 0 || size > maxPayload || size > uint64(len(b)-fixed-n) {
		return Envelope{}, nil, errTruncated
	}
	payload, rest := b[fixed+n:][:size], b[fixed+n:][size:]
	info, ok := kind.info()
	if !ok {
		return Envelope{}, nil, fmt.Errorf("kind %d is unknown to this binary; run a newer one", kind)
	}
	if version != info.version {
		return Envelope{}, nil, fmt.Errorf("version %d of %s is unknown to this binary; run a newer one", version, info.name)
	}
	if !validTime(at) {
		return Envelope{}, nil, fmt.Errorf("the leader time %s is impossible", at.Format(time.RFC3339))
	}
	cmd, err := info.decode(payload)
	if err != nil {
		return Envelope{}, nil, fmt.Errorf("%s: %w", info.name, err)
	}
	return Envelope{At: at, Command: cmd}, rest, nil
}

// decode reads a payload into a command of type T.
func decode[T Command](payload []byte) (Command, error) {
	var c T
	if err := strict(payload, &c); err != nil {
		return nil, err
	}
	return c, nil
}

// strict decodes exactly one JSON value without fields that into lacks: an
// unknown field is a meaning that this binary would lose.
func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}
