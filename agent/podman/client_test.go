package podman

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/podman/v5/pkg/errorhandling"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
)

func TestOpenWithoutPodman(t *testing.T) {
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Disk{})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Node: "a1", Socket: filepath.Join(t.TempDir(), "podman.sock"), Address: netip.MustParseAddr("127.0.0.1"), PagesDir: t.TempDir(),
		Store: store, Logger: slog.New(slog.DiscardHandler),
	}
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "connect to podman at "+o.Socket) {
		t.Errorf("no socket: got %v, want an error that names it", err)
	}
	o.Node = "not a name"
	if _, err := Open(t.Context(), o); err == nil {
		t.Error("a wrong node: got no error")
	}
}

func TestNotFound(t *testing.T) {
	gone := fmt.Errorf("remove: %w", &errorhandling.ErrorModel{ResponseCode: http.StatusNotFound})
	if !notFound(gone) || notFound(&errorhandling.ErrorModel{ResponseCode: http.StatusConflict}) || notFound(errors.New("404")) || notFound(nil) {
		t.Error("only a reply with status 404 says that something is not found")
	}
}
