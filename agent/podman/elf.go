package podman

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// sleepers are machine code that sleeps for ever: the whole program of the
// trial image, so that the preflight needs nothing from outside.
var sleepers = map[string]struct {
	machine uint16 // ELF's e_machine
	code    []byte
}{
	"amd64": {62, []byte{
		0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start: a signal may have woken it
	}},
	"arm64": {183, words(
		0xd2800000, // mov x0, 0: no descriptors
		0xd2800001, // mov x1, 0
		0xd2800002, // mov x2, 0: no timeout
		0xd2800003, // mov x3, 0: no signal mask
		0xd2800928, // mov x8, 73 (ppoll)
		0xd4000001, // svc 0
		0x17fffffa, // b to the start
	)},
}

func words(code ...uint32) []byte {
	var b []byte
	for _, w := range code {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

const (
	elfBase   = 0x400000 // where the program is mapped
	elfHeader = 64       // bytes of the file header
	elfSegm   = 56       // bytes of one program header
)

// sleeper returns a static ELF executable for an architecture.
func sleeper(arch string) ([]byte, error) {
	s, ok := sleepers[arch]
	if !ok {
		return nil, fmt.Errorf("no trial program for architecture %s", arch)
	}
	entry := uint64(elfHeader + elfSegm)
	size := entry + uint64(len(s.code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01") // 64 bits, little endian, version 1
	b.Write(make([]byte, 9))
	for _, field := range []any{
		uint16(2), s.machine, uint32(1), // executable, machine, version 1
		elfBase + entry,              // entry point
		uint64(elfHeader), uint64(0), // program headers follow; no sections
		uint32(0), uint16(elfHeader), // no flags; size of this header
		uint16(elfSegm), uint16(1), // one program header
		uint16(0), uint16(0), uint16(0), // no section headers
		uint32(1), uint32(5), uint64(0), // loadable, readable and executable, from the start
		uint64(elfBase), uint64(elfBase), // virtual and physical address
		size, size, uint64(0x1000), // in the file, in memory, alignment
	} {
		// Writing a fixed-size value to a buffer cannot fail.
		_ = binary.Write(&b, binary.LittleEndian, field)
	}
	b.Write(s.code)
	return b.Bytes(), nil
}

// sleeperPath is where the trial image has its only file.
const sleeperPath = "sleep"

// trialImage returns the root file system of the trial image as a tar.
func trialImage(arch string) (io.Reader, error) {
	program, err := sleeper(arch)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: sleeperPath, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, fmt.Errorf("make the trial image: %w", err)
	}
	if _, err := w.Write(program); err != nil {
		return nil, fmt.Errorf("make the trial image: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("make the trial image: %w", err)
	}
	return &b, nil
}
