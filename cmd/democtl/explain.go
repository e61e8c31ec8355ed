package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/boss/demo-multiplexer/api"
)

// explain spells an error together with what to do about it.
func explain(err error) string {
	text := err.Error()
	var e *api.Error
	if !errors.As(err, &e) {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return text + "; name a file that you can read"
		}
		return text
	}
	switch e.Code {
	case api.CodeUnauthenticated:
		return text + "; name the file with the operators' token by --token-file or DEMOCTL_TOKEN_FILE"
	case api.CodeUnavailable, api.CodeNotLeader:
		if errors.Is(err, syscall.ECONNREFUSED) {
			return text + "; check that demo-scheduler runs there, or name others by --endpoints or DEMOCTL_ENDPOINTS"
		}
		if e.Status == 0 {
			return text + "; name reachable schedulers by --endpoints or DEMOCTL_ENDPOINTS"
		}
		return text + "; look at democtl status"
	case api.CodeExhausted, api.CodeLimited:
		if e.RetryAfter > 0 {
			return fmt.Sprintf("%s; try again in %s", text, e.RetryAfter)
		}
	}
	return text
}
