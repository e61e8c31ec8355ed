package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

var update = flag.Bool("update", false, "write golden files that are missing; existing ones are kept for good")

// samples has one command of every kind, with every field set.
func samples() []Command {
	ref := api.TemplateRef{Name: "shop", Revision: 3}
	key := CheckpointKey{Template: ref, HostClass: "x86-v3"}
	stages := []api.Stage{{Name: api.StageRestore, Took: api.Duration(250 * time.Millisecond)}}
	return []Command{
		PutTemplate{Spec: api.Template{
			Name: "shop", Image: "localhost/demo/shop:1", Port: 8080, Command: []string{"/init"}, AdminPath: "/admin/",
			Health: api.HealthCheck{Path: "/health", Status: 204, Timeout: api.Duration(time.Minute)}, Warmup: []api.Request{{Path: "/"}},
			Resources: api.Resources{Memory: 512 << 20, CPUs: 1.5, PIDs: 256},
			Hooks:     api.Hooks{BeforeCheckpoint: []string{"/before"}, AfterRestore: []string{"/after"}},
			TTL:       api.TTL{Default: api.Duration(30 * time.Minute), Max: api.Duration(2 * time.Hour)}, Pool: api.Pool{Warm: 4},
		}},
		PutNode{Node: Node{
			ID: "n1", URL: "http://10.0.0.1:8090", Address: "10.0.0.1", HostClass: "x86-v3", Restores: true, Reason: "why",
			Capacity: 40, Versions: api.Versions{Agent: "1", Podman: "5.8.6", Runtime: "crun 1.28", CRIU: "4.2.1", Kernel: "6.18"},
			Status: api.NodeUp, ChangedAt: epoch,
		}},
		SetNodeStatus{Node: "n1", Status: api.NodeDown, Reason: "silent"},
		StartBuild{Key: key, Builder: "n1", Attempt: 2},
		FinishBuild{Key: key, Attempt: 2, Digest: "abc", Size: 107 << 20, Reason: "why", Stages: stages},
		CreateInstance{ID: "i-1", Template: ref, Node: "n1", Checkpoint: "abc", Host: "d-1"},
		WarmInstance{ID: "i-1", Address: "10.0.0.1:20001", Credentials: &api.Credentials{Username: "admin", Password: "secret"}, Stages: stages},
		FailInstance{ID: "i-1", Revision: 2, Reason: "why"},
		EndInstance{ID: "i-1", Revision: 2, Reason: "why"},
		RemoveInstance{ID: "i-1"},
		ClaimLease{Lease: "l1", Instance: "i-1", InstanceRevision: 2, TTL: api.Duration(30 * time.Minute), MaxTTL: api.Duration(2 * time.Hour), IdempotencyKey: "key", Fingerprint: "f"},
		RenewLease{Lease: "l1", Revision: 1, ExpiresAt: epoch.Add(time.Hour + time.Nanosecond)},
		ReleaseLease{Lease: "l1", Revision: 1},
		ExpireLeases{Leases: []LeaseRevision{{Lease: "l1", Revision: 1}, {Lease: "l2", Revision: 7}}},
		RebindLease{Lease: "l1", Revision: 1, Instance: "i-2", InstanceRevision: 2},
		GrantGrace{Grace: api.Duration(10 * time.Second)},
		Collect{EndedBefore: epoch, Limit: 100},
		SetClusterVersion{Version: 2},
		LoseLease{Lease: "l1", Revision: 1},
		RemoveCheckpoint{Key: key},
	}
}

// golden compares with a file, which -update writes only where there is none.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err != nil {
		t.Fatalf("%v; run the test with -update for a new kind or version", err)
	}
	return want
}

// TestGoldenCommands proves that logs of the past are read as they were meant:
// every kind that the log knows has a file, kept for good.
func TestGoldenCommands(t *testing.T) {
	if got, want := len(samples()), len(kinds); got != want {
		t.Fatalf("%d samples for %d kinds", got, want)
	}
	for i, cmd := range samples() {
		info := kinds[i]
		t.Run(info.name, func(t *testing.T) {
			if cmd.Kind() != info.kind {
				t.Fatalf("sample %d has kind %d, the table %d", i, cmd.Kind(), info.kind)
			}
			got := pack(t, epoch, cmd)
			want := golden(t, fmt.Sprintf("%02d-%s.v%d.entry", info.kind, info.name, info.version), got)
			if !bytes.Equal(got, want) {
				t.Errorf("encoded:\n%q\nthe log of the past has\n%q\na changed payload needs a new version", got, want)
			}
			envelopes, err := Decode(want)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if diff := cmp.Diff(envelopes, []Envelope{{At: epoch, Command: cmd}}); diff != "" {
				t.Errorf("decoded (-got +want):\n%s", diff)
			}
		})
	}
}

func TestKindsAreInOrder(t *testing.T) {
	for i, info := range kinds {
		if got, ok := info.kind.info(); !ok || got.name != info.name || int(info.kind) != i+1 {
			t.Errorf("kind %d, %s, is at place %d", info.kind, info.name, i+1)
		}
	}
	if got, want := Kind(999).String(), "kind_999"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

// entry frames a payload by hand, with a right checksum.
func entry(count uint64, kind Kind, version uint16, at int64, payload, tail string) []byte {
	b := binary.AppendUvarint([]byte{entryFormat}, count)
	b = binary.BigEndian.AppendUint16(b, uint16(kind))
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.AppendUvarint(b, uint64(len(payload)))
	b = append(append(b, payload...), tail...)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func TestDecodeRefuses(t *testing.T) {
	at := epoch.UnixNano()
	good := entry(1, KindRemoveInstance, 1, at, `{"id":"i-1"}`, "")
	if _, err := Decode(good); err != nil {
		t.Fatalf("Decode(%q): %v", good, err)
	}
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	for name, c := range map[string]struct {
		entry []byte
		want  string
	}{
		"empty":           {nil, "cut off"},
		"cut off":         {good[:len(good)-1], "damaged"},
		"damaged":         {damaged, "damaged"},
		"format":          {reframe(good, 2), "format 2"},
		"no commands":     {entry(0, KindRemoveInstance, 1, at, `{}`, ""), "holds 0 commands"},
		"too many":        {entry(257, KindRemoveInstance, 1, at, `{}`, ""), "holds 257 commands"},
		"missing command": {entry(2, KindRemoveInstance, 1, at, `{}`, ""), "command 2 of 2: the entry is cut off"},
		"unknown kind":    {entry(1, 999, 1, at, `{}`, ""), "kind 999 is unknown"},
		"unknown version": {entry(1, KindRemoveInstance, 2, at, `{}`, ""), "version 2 of remove_instance is unknown"},
		"unknown field":   {entry(1, KindRemoveInstance, 1, at, `{"id":"x","force":true}`, ""), `unknown field "force"`},
		"wrong type":      {entry(1, KindRemoveInstance, 1, at, `{"id":1}`, ""), "remove_instance: json"},
		"two payloads":    {entry(1, KindRemoveInstance, 1, at, `{"id":"x"}{}`, ""), "something follows"},
		"trailing bytes":  {entry(1, KindRemoveInstance, 1, at, `{"id":"x"}`, "x"), "1 bytes follow"},
		"broken clock":    {entry(1, KindRemoveInstance, 1, -1, `{"id":"x"}`, ""), "leader time 1969-12-31T23:59:59Z is impossible"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(c.entry)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Decode(%q) = %v, %v, want an error with %q", c.entry, got, err, c.want)
			}
		})
	}
}

func reframe(entry []byte, format byte) []byte {
	b := bytes.Clone(entry[:len(entry)-4])
	b[0] = format
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

// TestPackRefuses keeps out of the log what could not be read from it again.
func TestPackRefuses(t *testing.T) {
	for name, c := range map[string]Command{
		"negative size":  FinishBuild{Size: -1},
		"impossible end": RenewLease{ExpiresAt: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"huge":           FailInstance{Reason: strings.Repeat("x", maxPayload)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Pack(c); api.CodeOf(err) != api.CodeInvalid {
				t.Errorf("Pack = %v, want code invalid", err)
			}
		})
	}
	if _, err := Encode(epoch, nil); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("Encode of nothing = %v, want code invalid", err)
	}
	if _, err := Encode(time.Time{}, make([]Packed, 1)); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("Encode in the year 1 = %v, want code invalid", err)
	}
}

// FuzzDecode: a damaged or hostile entry gives an error, never a panic, and
// what is accepted can be applied and is written back as it was meant.
func FuzzDecode(f *testing.F) {
	for _, c := range samples() {
		f.Add(pack(f, epoch, c))
	}
	f.Add(pack(f, epoch, samples()...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum would hide everything behind it from the fuzzer.
		b = binary.BigEndian.AppendUint32(b, checksum(b))
		envelopes, err := Decode(b)
		if err != nil {
			return
		}
		v, _ := ApplyAll(New(), envelopes)
		if err := Check(v); err != nil {
			t.Fatalf("after %+v: %v", envelopes, err)
		}
		for _, e := range envelopes {
			again, err := Decode(pack(t, e.At, e.Command))
			if err != nil {
				t.Fatalf("Decode of what was packed: %v", err)
			}
			if diff := cmp.Diff(pack(t, e.At, again[0].Command), pack(t, e.At, e.Command)); diff != "" {
				t.Fatalf("decoded twice (-got +want):\n%s", diff)
			}
		}
	})
}
