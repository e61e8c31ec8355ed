package checkpoint

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/boss/demo-multiplexer/api"
)

// Disk guards a reserve of free disk, so that what this agent stores never
// fills the node.
type Disk struct {
	Reserve api.Bytes // always kept free
	// Free returns the free bytes of the file system at dir; nil asks the
	// kernel.
	Free func(dir string) (api.Bytes, error)
}

// Available returns the free bytes of the file system at dir.
func (d Disk) Available(dir string) (api.Bytes, error) {
	if d.Free != nil {
		return d.Free(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return api.Bytes(int64(fs.Bavail) * fs.Bsize), nil
}

// Room returns an error with code unavailable where need more bytes at dir
// would use up the reserve.
func (d Disk) Room(dir string, need int64) error {
	free, err := d.Available(dir)
	if err != nil {
		return err
	}
	if required := d.Reserve + api.Bytes(need); free < required {
		return api.Errorf(api.CodeUnavailable, "disk %s full: free %s, need %s", dir, inMiB(free), inMiB(required))
	}
	return nil
}

// Room returns an error where need more bytes in the store would use up the
// reserve.
func (s *Store) Room(need int64) error { return s.disk.Room(s.dir, need) }

func inMiB(b api.Bytes) string { return fmt.Sprintf("%d MiB", b>>20) }

// counter counts what is written and stops before the reserve is used up.
type counter struct {
	w    io.Writer
	disk Disk
	dir  string
	n    int64
	next int64 // when to look at the disk again
}

// lookEvery is how many bytes are written between two looks at the disk.
const lookEvery = 16 << 20

func (c *counter) Write(b []byte) (int, error) {
	if c.n >= c.next {
		if err := c.disk.Room(c.dir, lookEvery); err != nil {
			return 0, err
		}
		c.next = c.n + lookEvery
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
