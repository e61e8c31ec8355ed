//go:build lab

package podman

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// These tests need a real Podman with CRIU as root, best in a lab host:
// PODMAN_SOCKET names its socket, NODE_ADDRESS an address of the host, and
// TEMPLATE_IMAGE an image in its storage that is laid out like images/tiny.
//
//	go test -c -tags 'lab remote containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper' -o /tmp/labtest/podman.test ./agent/podman
//	LAB=pod LAB_SHARE=/tmp/labtest deploy/lab/lab up a1
//	LAB=pod deploy/lab/lab exec a1 env PODMAN_SOCKET=/run/podman/podman.sock NODE_ADDRESS=10.77.0.11 /opt/demo/podman.test -test.v -test.run Lab
//	LAB=pod deploy/lab/lab down
func labRuntime(t *testing.T) (*Runtime, api.NodeInfo) {
	t.Helper()
	socket, address := os.Getenv("PODMAN_SOCKET"), os.Getenv("NODE_ADDRESS")
	if socket == "" || address == "" {
		t.Fatal("set PODMAN_SOCKET and NODE_ADDRESS; see images/README.md and deploy/lab/lab")
	}
	dir := t.TempDir()
	store, err := checkpoint.Open(dir+"/checkpoints", checkpoint.Disk{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Options{
		Node: "labtest", Socket: socket, Address: netip.MustParseAddr(address), PagesDir: dir + "/pages", Store: store,
		Agent: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := r.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r, info
}

func labTemplate(t *testing.T) api.TemplateRevision {
	t.Helper()
	image := os.Getenv("TEMPLATE_IMAGE")
	if image == "" {
		image = "localhost/demo/tiny:latest"
	}
	template := api.Template{
		Name: "labtest", Image: image, Port: 8080, Health: api.HealthCheck{Path: "/health"}, Warmup: []api.Request{{Path: "/"}},
		Hooks: api.Hooks{BeforeCheckpoint: []string{"/usr/lib/demo/before-checkpoint"}, AfterRestore: []string{"/usr/lib/demo/after-restore"}},
	}.WithDefaults()
	if err := template.Validate(); err != nil {
		t.Fatal(err)
	}
	return api.TemplateRevision{Template: template, Revision: 1}
}

func TestLabLife(t *testing.T) {
	r, info := labRuntime(t)
	if !info.Restores {
		t.Fatalf("this host does not restore: %s", info.Reason)
	}
	template := labTemplate(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	built, err := r.Build(ctx, template, 28001)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("build: %v, %s", built.Stages, built.Size)
	library := r.Library(checkpoint.NewFetcher(r.store, info.HostClass, "", 1, 0))
	passwords := map[string]bool{}
	for n, id := range []api.InstanceID{"i-one", "i-two", "i-cold"} {
		want := api.DesiredInstance{ID: id, Template: template.Ref(), Checkpoint: built.Digest, Host: string(id) + ".demo.localhost", State: api.InstanceWarm}
		want.URL = "http://" + want.Host
		if id == "i-cold" {
			want.Checkpoint = ""
		}
		i, err := r.Start(ctx, template, want, 28002+n)
		if err != nil {
			t.Fatalf("start %s: %v", id, err)
		}
		t.Logf("start %s: %v", id, i.Stages)
		if i.Credentials == nil || passwords[i.Credentials.Password] {
			t.Fatalf("%s has no credentials of its own: %v", id, i.Credentials)
		}
		passwords[i.Credentials.Password] = true
	}
	found, err := r.List(ctx)
	if err != nil || len(found) != 3 {
		t.Fatalf("List() = %v, %v; want three instances", found, err)
	}
	for _, i := range found {
		if i.State != api.InstanceWarm {
			t.Errorf("%s is %s (%s), want warm", i.ID, i.State, i.Reason)
		}
		page := get(t, "http://"+r.endpoint(i.Port).String()+"/")
		if image := os.Getenv("TEMPLATE_IMAGE"); image == "" && !strings.Contains(page, string(i.ID)) {
			t.Errorf("the page of %s does not name it:\n%s", i.ID, page)
		}
		if err := r.Remove(ctx, i.ID); err != nil {
			t.Errorf("Remove(%s): %v", i.ID, err)
		}
	}
	if err := library.Remove(ctx, built.Digest); err != nil {
		t.Errorf("remove the checkpoint: %v", err)
	}
	if left, err := r.listed(ctx, ""); err != nil || len(left) != 0 {
		t.Errorf("left containers %v, %v", left, err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
