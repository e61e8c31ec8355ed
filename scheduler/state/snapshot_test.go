package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

// seal makes the checksum of a hand-made snapshot right.
func seal(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(bytes.Clone(b), sum[:]...)
}

// TestGoldenSnapshot proves that snapshots of the past are read, and that
// equal states write equal bytes.
func TestGoldenSnapshot(t *testing.T) {
	_, v := randomLog(t, 41, 300)
	got := snapshot(t, v)
	want := golden(t, "snapshot.v1", got)
	restored := restore(t, want)
	if err := Check(restored); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(snapshot(t, restored), want) {
		t.Error("the snapshot of the past is not written as it was read")
	}
}

func TestReadRefuses(t *testing.T) {
	_, v := randomLog(t, 42, 200)
	good := snapshot(t, v)
	body := good[:len(good)-sha256.Size]
	header := body[:bytes.IndexByte(body, '}')+1]
	for name, c := range map[string]struct {
		snapshot []byte
		want     string
	}{
		"empty":            {nil, "cut off"},
		"other file":       {[]byte("#!/bin/sh\nexit 0\n"), "no snapshot of this program"},
		"future format":    {append([]byte(snapshotMagic), 0, 2), "format 2"},
		"followed":         {append(bytes.Clone(good), 0), "something follows"},
		"no header":        {seal(append([]byte(snapshotMagic+"\x00\x01"), recordEnd, 2, '{', '}')), "no header"},
		"unknown type":     {seal(append(bytes.Clone(header), 99, 2, '{', '}')), "does not know the type"},
		"unknown field":    {seal(append(bytes.Clone(header), "\x03\x08{\"x\":12}"...)), "unknown field"},
		"no key":           {seal(append(bytes.Clone(header), "\x03\x02{}"...)), "not valid"},
		"unknown state":    {seal(append(bytes.Clone(header), "\x05\x0a{\"id\":\"a\"}"...)), "not valid"},
		"twice":            {seal(append(bytes.Clone(header), "\x03\x0a{\"id\":\"a\"}\x03\x0a{\"id\":\"a\"}"...)), "out of order"},
		"tables unordered": {seal(append(bytes.Clone(header), "\x07\x0b{\"key\":\"a\"}\x03\x0a{\"id\":\"a\"}"...)), "out of order"},
		"lost records":     {seal(append(bytes.Clone(header), "\xff\x0d{\"records\":7}"...)), "holds 0 records instead of 7"},
		"huge record":      {append(bytes.Clone(header), 3, 0xff, 0xff, 0xff, 0xff, 0x7f), "impossible"},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := Read(bytes.NewReader(c.snapshot)); err == nil || v != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Read = %v, %v, want an error with %q", v, err, c.want)
			}
		})
	}
}

// TestTornSnapshot cuts a snapshot off and damages it at every byte.
func TestTornSnapshot(t *testing.T) {
	_, v := randomLog(t, 43, 40)
	good := snapshot(t, v)
	for i := range good {
		if _, err := Read(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", i, len(good))
		}
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if _, err := Read(bytes.NewReader(bad)); err == nil {
			t.Fatalf("damage at byte %d of %d was accepted", i, len(good))
		}
	}
}

type brokenWriter struct{ left int }

var errFull = errors.New("no space left on device")

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteReportsFullDisk(t *testing.T) {
	_, v := randomLog(t, 44, 100)
	for _, left := range []int{0, 9, 200, 2000} {
		if err := Write(&brokenWriter{left}, v); !errors.Is(err, errFull) {
			t.Errorf("Write to a disk with %d bytes left = %v, want %v", left, err, errFull)
		}
	}
}

// FuzzRead: whatever the bytes, Read gives an error or a sound view.
func FuzzRead(f *testing.F) {
	log, _ := randomLog(f, 45, 300)
	for _, n := range []int{4, 30, 120} {
		v, _ := ApplyAll(New(), log[:n])
		b := snapshot(f, v)
		f.Add(b[:len(b)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Read(bytes.NewReader(seal(b)))
		if err != nil {
			return
		}
		if restored := restore(t, snapshot(t, v)); restored.Revision() != v.Revision() {
			t.Errorf("revision %d became %d", v.Revision(), restored.Revision())
		}
	})
}
