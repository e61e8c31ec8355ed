package podman

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boss/demo-multiplexer/api"
)

func TestCPUFeatures(t *testing.T) {
	for _, c := range []struct {
		name, cpuinfo string
		want          []string
	}{
		{"amd64", "processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: sse2 fpu sse2 avx\n\nprocessor\t: 1\nflags\t\t: other\n", []string{"avx", "fpu", "sse2"}},
		{"arm64", "processor\t: 0\nFeatures\t: fp asimd\n", []string{"asimd", "fp"}},
		{"nothing", "processor: 0\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cpuFeatures(c.cpuinfo); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestHostClass checks that whatever a checkpoint depends on makes another
// class, and nothing else does.
func TestHostClass(t *testing.T) {
	v := api.Versions{Agent: "1", Podman: "5.8.6", Runtime: "crun 1.28", CRIU: "4.2.1", Kernel: "6.18.44-amd64"}
	features := []string{"avx", "sse2"}
	base := hostClass("amd64", features, v)
	if !strings.HasPrefix(string(base), "amd64-6.18-") || !api.ValidName(strings.ReplaceAll(string(base), ".", "-")) {
		t.Errorf("host class: got %s, want amd64-6.18- and a hash", base)
	}
	newer := v
	newer.Agent = "2"
	if got := hostClass("amd64", features, newer); got != base {
		t.Errorf("another agent: got %s, want the same as %s", got, base)
	}
	classes := map[api.HostClass]string{base: "the base"}
	for what, class := range map[string]api.HostClass{
		"architecture": hostClass("arm64", features, v),
		"CPU":          hostClass("amd64", features[:1], v),
		"podman":       hostClass("amd64", features, api.Versions{Podman: "5.8.7", Runtime: v.Runtime, CRIU: v.CRIU, Kernel: v.Kernel}),
		"runtime":      hostClass("amd64", features, api.Versions{Podman: v.Podman, Runtime: "crun 1.29", CRIU: v.CRIU, Kernel: v.Kernel}),
		"criu":         hostClass("amd64", features, api.Versions{Podman: v.Podman, Runtime: v.Runtime, CRIU: "4.3", Kernel: v.Kernel}),
		"kernel":       hostClass("amd64", features, api.Versions{Podman: v.Podman, Runtime: v.Runtime, CRIU: v.CRIU, Kernel: "6.18.45-amd64"}),
	} {
		if other, ok := classes[class]; ok {
			t.Errorf("another %s has the class of %s", what, other)
		}
		classes[class] = what
	}
	if got := hostClass("amd64", nil, api.Versions{}); !strings.HasPrefix(string(got), "amd64--") {
		t.Errorf("an unknown kernel: got %s, want a class all the same", got)
	}
}

// TestTrialProgram reads the program that was written by hand as a loader
// does.
func TestTrialProgram(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			program, err := sleeper(arch)
			if err != nil {
				t.Fatal(err)
			}
			f, err := elf.NewFile(bytes.NewReader(program))
			if err != nil {
				t.Fatal(err)
			}
			if f.Type != elf.ET_EXEC || f.Machine != machine || len(f.Progs) != 1 {
				t.Fatalf("got type %s for %s with %d segments, want an executable for %s with one", f.Type, f.Machine, len(f.Progs), machine)
			}
			segment := f.Progs[0]
			code := f.Entry - segment.Vaddr
			if segment.Filesz != uint64(len(program)) || segment.Flags != elf.PF_R|elf.PF_X || !bytes.Equal(program[code:], sleepers[arch].code) {
				t.Errorf("segment: got %+v and entry at %d, want the whole file, no writing, and the code at the entry", segment.ProgHeader, code)
			}
		})
	}
	if _, err := sleeper("pdp11"); err == nil {
		t.Error("an unknown architecture: got no error")
	}
}

func TestTrialImage(t *testing.T) {
	image, err := trialImage("amd64")
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(image)
	h, err := archive.Next()
	if err != nil || h.Name != sleeperPath || h.Mode != 0o755 {
		t.Fatalf("first file: got %+v, %v, want an executable %s", h, err, sleeperPath)
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("second file: got %v, want none", err)
	}
}

func TestShmFilled(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, headers ...string) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(&tar.Header{Name: h, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]bool{filepath.Join(dir, "none"): false, write("empty"): false, write("only-itself", "."): false, write("filled", ".", "x"): true} {
		if got, err := shmFilled(path); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", filepath.Base(path), got, err, want)
		}
	}
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("x"), 2000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := shmFilled(garbage); err == nil {
		t.Error("garbage: got no error")
	}
}

func TestCRIUComplaint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restore.log")
	if got := criuComplaint(path); got != "" {
		t.Errorf("no log: got %q, want nothing", got)
	}
	log := "(00.000001) Version: 4.2\n(00.1) Error (criu/tun.c:85): tun: No such device\n(00.2) Error (criu/x.c:1): follows from it\n"
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := criuComplaint(path), "; CRIU says: (criu/tun.c:85): tun: No such device"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStopwatchNamesTheStage(t *testing.T) {
	var w stopwatch
	broken := errors.New("broken")
	if err := w.run(api.StagePrepare, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	err := w.run(api.StageHook, func() error { return broken })
	var staged interface{ Stage() string }
	if !errors.Is(err, broken) || !errors.As(err, &staged) || staged.Stage() != api.StageHook || err.Error() != "hook: broken" {
		t.Errorf("got %v, want hook: broken, in stage hook", err)
	}
	if len(w.stages) != 2 {
		t.Errorf("stages: got %v, want both", w.stages)
	}
}
