package podman

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/containers/podman/v5/pkg/api/handlers"
	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// hookTimeout bounds one hook: what a visitor's code may do later must not
	// hold the agent now.
	hookTimeout = 10 * time.Second
	// maxHookOutput bounds what a hook prints, in bytes.
	maxHookOutput = 64 << 10
	// maxCredential bounds a user name or password, in bytes.
	maxCredential = 256
)

// hookInput is the JSON document that a hook reads.
type hookInput struct {
	Instance api.InstanceID `json:"instance,omitempty"`
	Host     string         `json:"host,omitempty"`
	URL      string         `json:"url,omitempty"`
	Seed     []byte         `json:"seed"` // 32 random bytes, in base64
}

// hookOutput is the JSON document that the after-restore hook prints. What it
// proves is for the template's author to say; that it proves something is ours
// to check.
type hookOutput struct {
	Proofs      map[string]string `json:"proofs"`
	Credentials *api.Credentials  `json:"credentials"`
}

var errTooMuch = fmt.Errorf("it printed more than %d bytes", maxHookOutput)

// limited keeps what a hook prints, up to a limit.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxHookOutput {
		return 0, errTooMuch
	}
	return l.Buffer.Write(b)
}

// hook runs a hook in a container and returns what it printed. Anything but an
// exit code 0 in time and within bounds is an error.
func (r *Runtime) hook(ctx context.Context, container string, argv []string, in hookInput) ([]byte, error) {
	input, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode the hook's input: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, hookTimeout, fmt.Errorf("it did not end within %s", hookTimeout))
	defer cancel()
	out, code, err := r.exec(ctx, container, argv, input)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("hook %s: %w", argv[0], context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("hook %s: %w", argv[0], err)
	case code != 0:
		return nil, fmt.Errorf("hook %s: exit code %d: %s", argv[0], code, firstLine(out.stderr.String()))
	}
	return out.stdout.Bytes(), nil
}

type output struct{ stdout, stderr limited }

// exec runs a command in a container through the API.
func (r *Runtime) exec(ctx context.Context, container string, argv []string, input []byte) (*output, int, error) {
	conn, err := r.client.private(ctx)
	if err != nil {
		return nil, 0, err
	}
	config := new(handlers.ExecCreateConfig)
	config.AttachStdin, config.AttachStdout, config.AttachStderr, config.Cmd = true, true, true, argv
	session, err := containers.ExecCreate(conn, container, config)
	if err != nil {
		return nil, 0, fmt.Errorf("create exec session: %w", err)
	}
	out := new(output)
	var stdout, stderr io.Writer = &out.stdout, &out.stderr
	options := new(containers.ExecStartAndAttachOptions).
		WithInputStream(*bufio.NewReader(bytes.NewReader(input))).WithAttachInput(true).
		WithOutputStream(stdout).WithAttachOutput(true).
		WithErrorStream(stderr).WithAttachError(true)
	if err := containers.ExecStartAndAttach(conn, session, options); err != nil {
		return nil, 0, fmt.Errorf("run exec session: %w", err)
	}
	code, err := r.exitCode(ctx, session)
	return out, code, err
}

// exitCode waits for the end of an exec session, which Podman notes a moment
// after the session's output has ended.
func (r *Runtime) exitCode(ctx context.Context, session string) (code int, err error) {
	// The session took its connection over: ask on the shared one.
	ask, cancel := r.client.call(ctx, queryTimeout)
	defer cancel()
	err = until(ask, queryTimeout, func(ctx context.Context) error {
		state, err := containers.ExecInspect(ctx, session, nil)
		if err != nil {
			return fmt.Errorf("inspect exec session: %w", err)
		}
		if state.Running {
			return errors.New("it closed its output and runs on")
		}
		code = state.ExitCode
		return nil
	})
	return code, err
}

// rekey runs the after-restore hook and fails closed: without proof of new
// secrets an instance must not serve.
func (r *Runtime) rekey(ctx context.Context, container string, t api.Template, in hookInput) (*api.Credentials, error) {
	if len(t.Hooks.AfterRestore) == 0 {
		return nil, nil // the template says that there is nothing to renew
	}
	printed, err := r.hook(ctx, container, t.Hooks.AfterRestore, in)
	if err != nil {
		return nil, err
	}
	return parseHookOutput(printed)
}

func parseHookOutput(printed []byte) (*api.Credentials, error) {
	var out hookOutput
	d := json.NewDecoder(bytes.NewReader(printed))
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("the hook did not print its JSON document: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the hook printed more than its JSON document")
	}
	if len(out.Proofs) == 0 {
		return nil, errors.New("the hook proved nothing, so the instance may share secrets with others")
	}
	for name, proof := range out.Proofs {
		if name == "" || proof == "" {
			return nil, errors.New("the hook printed an empty proof")
		}
	}
	if c := out.Credentials; c != nil && (!validCredential(c.Username) || !validCredential(c.Password)) {
		return nil, fmt.Errorf("the hook's credentials must be printable and have 1 to %d bytes", maxCredential)
	}
	return out.Credentials, nil
}

func validCredential(s string) bool {
	return s != "" && len(s) <= maxCredential && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// firstLine returns the start of what a hook complained about.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s[:min(len(s), 200)]
}
