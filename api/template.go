package api

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds that a template must keep.
const (
	MinTTL        = 10 * time.Second
	MaxTTL        = 24 * time.Hour
	MaxPoolSize   = 10_000
	maxHookArgs   = 32
	maxWarmup     = 64
	minMemory     = Bytes(16 << 20)
	maxHealthWait = 10 * time.Minute
)

// Template is what an operator writes: what is demoed and how.
type Template struct {
	Name      TemplateName `json:"name"`
	Image     string       `json:"image"`                // reference of the base image in the nodes' storage
	Port      int          `json:"port"`                 // TCP port that the application serves HTTP on
	Command   []string     `json:"command,omitempty"`    // replaces the image's command
	AdminPath string       `json:"admin_path,omitempty"` // path of the back office, for admin_url
	Health    HealthCheck  `json:"health"`
	Warmup    []Request    `json:"warmup,omitempty"` // sent before the checkpoint is taken
	Resources Resources    `json:"resources"`
	Hooks     Hooks        `json:"hooks"`
	TTL       TTL          `json:"ttl"`
	Pool      Pool         `json:"pool"`
}

// HealthCheck says when an instance serves.
type HealthCheck struct {
	Path    string   `json:"path"`              // default "/"
	Status  int      `json:"status,omitempty"`  // default 200
	Timeout Duration `json:"timeout,omitempty"` // for a cold boot; default 1m
}

// Request is one warm-up request.
type Request struct {
	Path string `json:"path"`
}

// Resources bound what one instance may use.
type Resources struct {
	Memory Bytes   `json:"memory"` // default 512MiB
	CPUs   float64 `json:"cpus"`   // default 1
	PIDs   int64   `json:"pids"`   // default 256
}

// Hooks are executables inside the image. Each reads a JSON document on
// standard input and must exit 0 in time.
type Hooks struct {
	BeforeCheckpoint []string `json:"before_checkpoint,omitempty"`
	AfterRestore     []string `json:"after_restore,omitempty"`
}

// TTL bounds how long a lease lasts.
type TTL struct {
	Default Duration `json:"default"` // default 30m
	Max     Duration `json:"max"`     // of the whole lease, extensions included; default 2h
}

// Pool says how many instances are kept warm.
type Pool struct {
	Warm int `json:"warm"`
}

// WithDefaults returns t with every unset optional field filled in.
func (t Template) WithDefaults() Template {
	setDefault(&t.Health.Path, "/")
	setDefault(&t.Health.Status, http.StatusOK)
	setDefault(&t.Health.Timeout, Duration(time.Minute))
	setDefault(&t.Resources.Memory, 512<<20)
	setDefault(&t.Resources.CPUs, 1)
	setDefault(&t.Resources.PIDs, 256)
	setDefault(&t.TTL.Default, Duration(30*time.Minute))
	setDefault(&t.TTL.Max, max(Duration(2*time.Hour), t.TTL.Default))
	return t
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports everything that is wrong with t as one Error with
// CodeInvalid. Call it after WithDefaults.
func (t Template) Validate() error {
	var v validator
	v.check(ValidName(string(t.Name)), "name", "must be a lower-case DNS label such as wordpress")
	v.check(t.Image != "" && !strings.ContainsAny(t.Image, " \t\n"), "image", "must name an image that the nodes hold, such as localhost/demo/wordpress:latest")
	v.check(t.Port > 0 && t.Port < 65536, "port", "must be a TCP port from 1 to 65535")
	v.check(t.AdminPath == "" || validPath(t.AdminPath), "admin_path", "must be an absolute path such as /wp-admin/")
	v.check(validPath(t.Health.Path), "health.path", "must be an absolute path such as /health")
	v.check(t.Health.Status >= 200 && t.Health.Status < 400, "health.status", "must be an HTTP status from 200 to 399")
	v.check(t.Health.Timeout.D() >= time.Second && t.Health.Timeout.D() <= maxHealthWait, "health.timeout", "must be from 1s to 10m")
	v.check(len(t.Warmup) <= maxWarmup, "warmup", "must have at most %d requests", maxWarmup)
	for i, r := range t.Warmup {
		v.check(validPath(r.Path), fmt.Sprintf("warmup[%d].path", i), "must be an absolute path such as /")
	}
	v.check(t.Resources.Memory >= minMemory, "resources.memory", "must be at least %s", minMemory)
	v.check(t.Resources.CPUs > 0 && t.Resources.CPUs <= 256, "resources.cpus", "must be above 0 and at most 256")
	v.check(t.Resources.PIDs >= 4 && t.Resources.PIDs <= 1<<22, "resources.pids", "must be at least 4")
	v.hook("hooks.before_checkpoint", t.Hooks.BeforeCheckpoint)
	v.hook("hooks.after_restore", t.Hooks.AfterRestore)
	v.check(t.TTL.Default.D() >= MinTTL && t.TTL.Default <= t.TTL.Max, "ttl.default", "must be from %s to ttl.max", MinTTL)
	v.check(t.TTL.Max.D() <= MaxTTL, "ttl.max", "must be at most %s", MaxTTL)
	v.check(t.Pool.Warm >= 0 && t.Pool.Warm <= MaxPoolSize, "pool.warm", "must be from 0 to %d", MaxPoolSize)
	return v.err("the template is not valid")
}

// validPath reports whether p is an absolute, clean URL path, optionally with
// a query.
func validPath(p string) bool {
	p, _, _ = strings.Cut(p, "?")
	return strings.HasPrefix(p, "/") && len(p) <= 1024 && !strings.ContainsAny(p, " \r\n\t#") &&
		strings.TrimSuffix(path.Clean(p), "/") == strings.TrimSuffix(p, "/")
}

// validator collects field errors.
type validator struct{ fields []FieldError }

func (v *validator) check(ok bool, field, reason string, args ...any) {
	if !ok {
		v.fields = append(v.fields, FieldError{Field: field, Reason: fmt.Sprintf(reason, args...)})
	}
}

func (v *validator) hook(field string, argv []string) {
	v.check(len(argv) <= maxHookArgs, field, "must have at most %d words", maxHookArgs)
	v.check(len(argv) == 0 || path.IsAbs(argv[0]), field, "must start with the absolute path of an executable in the image")
}

func (v *validator) err(summary string) error { return InvalidFields(summary, v.fields) }

// InvalidFields returns an [*Error] with [CodeInvalid] that names every field,
// sorted, or nil where there is none.
func InvalidFields(summary string, fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	slices.SortStableFunc(fields, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = f.Field + " " + f.Reason
	}
	return &Error{Code: CodeInvalid, Message: summary + ": " + strings.Join(parts, "; "), Fields: fields}
}
