package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// journal keeps on disk what a restarted agent must know. Every write is
// atomic: a file is the old one or the new one, whole.
type journal struct {
	dir string
}

// savedDesired is the file desired.json. Deadlines are wall-clock times,
// because no monotonic clock outlives its process.
type savedDesired struct {
	Desired   api.Desired                  `json:"desired"`
	SavedAt   time.Time                    `json:"saved_at"`
	Deadlines map[api.InstanceID]time.Time `json:"deadlines,omitempty"`
}

const (
	desiredFile  = "desired.json"
	buildsFile   = "builds.json"
	instancesDir = "instances"
)

func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(filepath.Join(dir, instancesDir), 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &journal{dir: dir}, nil
}

// saveDesired stores d; now is the wall and monotonic time of the call.
func (j *journal) saveDesired(d Desired, now time.Time) error {
	saved := savedDesired{Desired: d.Desired, SavedAt: now.UTC(), Deadlines: map[api.InstanceID]time.Time{}}
	for id, deadline := range d.Deadlines {
		saved.Deadlines[id] = now.Add(deadline.Sub(now)).UTC()
	}
	return j.write(desiredFile, saved)
}

// loadDesired returns the last saved Desired as of now, or the zero value. A
// clock that was set back while the agent was down never lengthens a lease.
func (j *journal) loadDesired(now time.Time) (Desired, error) {
	var saved savedDesired
	if err := j.read(desiredFile, &saved); err != nil {
		return Desired{}, err
	}
	d := Desired{Desired: saved.Desired, Deadlines: map[api.InstanceID]time.Time{}}
	for id, deadline := range saved.Deadlines {
		left := min(deadline.Sub(now.Round(0)), deadline.Sub(saved.SavedAt))
		d.Deadlines[id] = now.Add(left)
	}
	return d, nil
}

func (j *journal) saveBuilds(builds map[api.TemplateRef]Build) error {
	var done []api.ObservedBuild
	for _, b := range builds {
		if !b.Busy && b.State == api.CheckpointReady {
			done = append(done, b.ObservedBuild)
		}
	}
	return j.write(buildsFile, done)
}

func (j *journal) loadBuilds() (map[api.TemplateRef]Build, error) {
	var done []api.ObservedBuild
	if err := j.read(buildsFile, &done); err != nil {
		return nil, err
	}
	builds := map[api.TemplateRef]Build{}
	for _, b := range done {
		builds[b.Build.Template] = Build{ObservedBuild: b}
	}
	return builds, nil
}

// saveInstance stores what is needed to adopt an instance, its credentials
// included; the file is for the agent's user only.
func (j *journal) saveInstance(i api.ObservedInstance) error {
	return j.write(instanceFile(i.ID), i)
}

func (j *journal) dropInstance(id api.InstanceID) error {
	err := os.Remove(filepath.Join(j.dir, instanceFile(id)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop record of instance: %w", err)
	}
	return nil
}

func (j *journal) loadInstances() (map[api.InstanceID]api.ObservedInstance, error) {
	entries, err := os.ReadDir(filepath.Join(j.dir, instancesDir))
	if err != nil {
		return nil, fmt.Errorf("read records of instances: %w", err)
	}
	known := map[api.InstanceID]api.ObservedInstance{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var i api.ObservedInstance
		if err := j.read(filepath.Join(instancesDir, e.Name()), &i); err != nil {
			return nil, err
		}
		known[i.ID] = i
	}
	return known, nil
}

func instanceFile(id api.InstanceID) string { return filepath.Join(instancesDir, string(id)+".json") }

// read decodes a file; one that does not exist leaves v as it is.
func (j *journal) read(name string, v any) error {
	b, err := os.ReadFile(filepath.Join(j.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w; restore the file or remove it", filepath.Join(j.dir, name), err)
	}
	return nil
}

func (j *journal) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	path := filepath.Join(j.dir, name)
	if err := writeFile(path, b); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeFile replaces path by b so that a crash leaves the old content or the
// new one.
func writeFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close())
}
