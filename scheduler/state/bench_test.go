package state

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// warmView has n warm instances over 100 nodes.
func warmView(b *testing.B, n int) *View {
	b.Helper()
	x := begin(New())
	x.now = epoch
	x.putTemplate(&Template{Spec: api.Template{Name: "shop"}, Revision: 1})
	for i := range 100 {
		x.putNode(&Node{ID: api.NodeID(fmt.Sprintf("n%02d", i)), Status: api.NodeUp})
	}
	for i := range n {
		x.putInstance(&Instance{
			ID: instanceID(i), Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: api.NodeID(fmt.Sprintf("n%02d", i%100)),
			Host: fmt.Sprintf("d-%07d", i), State: api.InstanceWarm, Address: "10.0.0.1:4000",
			Revision: 2, CreatedAt: epoch, ChangedAt: epoch,
		})
	}
	return x.commit()
}

func instanceID(i int) api.InstanceID { return api.InstanceID(fmt.Sprintf("i-%07d", i)) }

func benchClaim(i int) ClaimLease {
	return ClaimLease{
		Lease: api.LeaseID(fmt.Sprintf("l%025d", i)), Instance: instanceID(i), InstanceRevision: 2,
		TTL: api.Duration(30 * time.Minute), MaxTTL: api.Duration(2 * time.Hour),
		IdempotencyKey: fmt.Sprintf("key-%d", i), Fingerprint: "f",
	}
}

// BenchmarkClaim measures one claim through decode and apply, alone and in the
// largest batch, among 100,000 instances.
func BenchmarkClaim(b *testing.B) {
	const instances = 100_000
	start := warmView(b, instances)
	for _, batch := range []int{1, MaxBatch} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			var entries [][]byte
			for first := 0; first+batch <= instances && len(entries) < 20_000; first += batch {
				packed := make([]Packed, batch)
				for i := range packed {
					var err error
					if packed[i], err = Pack(benchClaim(first + i)); err != nil {
						b.Fatal(err)
					}
				}
				entry, err := Encode(epoch, packed)
				if err != nil {
					b.Fatal(err)
				}
				entries = append(entries, entry)
			}
			b.ReportAllocs()
			v, n := start, 0
			for b.Loop() {
				if n == len(entries) {
					v, n = start, 0
				}
				envelopes, err := Decode(entries[n])
				if err != nil {
					b.Fatal(err)
				}
				var results []Result
				if v, results = ApplyAll(v, envelopes); results[0].Refusal != nil {
					b.Fatal(results[0].Refusal)
				}
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/command")
		})
	}
}

func BenchmarkPack(b *testing.B) {
	c := benchClaim(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Pack(c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSnapshot writes and reads 100,000 instances.
func BenchmarkSnapshot(b *testing.B) {
	v := warmView(b, 100_000)
	var buf bytes.Buffer
	if err := Write(&buf, v); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if err := Write(io.Discard, v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if _, err := Read(bytes.NewReader(buf.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}
