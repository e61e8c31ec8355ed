package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/boss/demo-multiplexer/"

// Build tags that together select every Go file of the module.
const allTags = "remote,containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper,lab,integration"

// rule says what one package may import of this module, and what it must not
// import of anything. A pattern ending in /... covers the packages below.
type rule struct {
	may []string
	not []string
}

// technology is named by adapters only.
const (
	raftLib   = "github.com/hashicorp/raft/..."
	gossipLib = "github.com/hashicorp/memberlist/..."
	valkeyLib = "github.com/valkey-io/valkey-go/..."
	podmanLib = "github.com/containers/podman/v5/..."
	promLib   = "github.com/prometheus/client_golang/..."
)

// rules is the package map of docs/ARCHITECTURE.md as a test. Every package
// of the module has a row.
var rules = map[string]rule{
	"api":     {not: []string{raftLib, gossipLib, valkeyLib, podmanLib, promLib}},
	"cluster": {may: []string{"api"}, not: []string{raftLib}},
	"cluster/clustertest": {
		may: []string{"api", "cluster"}, not: []string{raftLib}},

	"cmd/scheduler": {may: []string{"scheduler", "internal/config", "internal/version"}},
	"cmd/agent":     {may: []string{"agent", "internal/config", "internal/version"}},
	"cmd/democtl":   {may: []string{"api", "internal/config", "internal/version"}},
	"cmd/dev":       {may: []string{"scheduler", "agent", "api", "internal/config", "internal/lifecycle", "internal/version"}},

	"scheduler": {may: []string{"scheduler/...", "cluster", "api", "internal/...", "edge/devproxy"}},
	"scheduler/state": {
		may: []string{"api"},
		not: []string{raftLib, promLib, "log/slog", "log", "os", "net", "net/http", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand"}},
	"scheduler/consensus": {
		may: []string{"scheduler/state", "api"}, not: []string{"net/http"}},
	"scheduler/consensus/consensustest": {
		may: []string{"scheduler/state", "scheduler/consensus", "api"}},
	"scheduler/placement": {
		may: []string{"scheduler/state", "api"}, not: []string{"os", "net", "net/http", "log/slog"}},
	"scheduler/lease": {
		may: []string{"scheduler/state", "scheduler/placement", "api"}, not: []string{"net/http", raftLib, valkeyLib}},
	"scheduler/reconcile": {
		may: []string{"scheduler/state", "scheduler/placement", "api"}, not: []string{"net/http", raftLib, valkeyLib, gossipLib}},
	"scheduler/edge":     {may: []string{"api", "edge/page"}},
	"scheduler/session":  {may: []string{"api"}},
	"scheduler/httpd":    {may: []string{"api", "internal/httpx"}, not: []string{raftLib, valkeyLib}},
	"edge/page":          {may: []string{"api"}},
	"edge/devproxy":      {may: []string{"api", "edge/page"}},
	"agent":              {may: []string{"agent/...", "cluster", "api", "internal/..."}},
	"agent/pool":         {may: []string{"api"}, not: []string{podmanLib, gossipLib, "net/http"}},
	"agent/podman":       {may: []string{"api", "agent/checkpoint", "agent/httpprobe"}},
	"agent/page":         {may: []string{"api"}},
	"agent/checkpoint":   {may: []string{"api"}, not: []string{podmanLib}},
	"agent/httpd":        {may: []string{"api", "internal/httpx"}, not: []string{podmanLib}},
	"internal/lifecycle": {},
	"internal/config":    {may: []string{"api"}},
	"internal/version":   {},
	"internal/logging":   {},
	"internal/simtest":   {may: []string{"scheduler/...", "agent/...", "cluster", "api", "internal/..."}},
	"internal/httpx":     {may: []string{"api"}},
	"internal/arch":      {},
	"internal/labtest":   {may: []string{"api"}},
	"internal/bench":     {may: []string{"api", "scheduler/...", "internal/..."}},
	"deploy/lab/forward": {},
	"images/...":         {},
}

// adapters are the only packages that may name a technology.
var adapters = map[string][]string{
	raftLib:   {"scheduler/consensus", "scheduler/consensus/consensustest", "internal/bench"},
	gossipLib: {"cluster", "cluster/clustertest"},
	valkeyLib: {"scheduler/session", "internal/bench"},
	podmanLib: {"agent/podman"},
}

type goPackage struct {
	ImportPath                         string
	Dir                                string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", allTags, "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

func matches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return pattern == path
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func ruleFor(pkg string) (rule, bool) {
	if r, ok := rules[pkg]; ok {
		return r, true
	}
	for pattern, r := range rules {
		if matches(pattern, pkg) && strings.HasSuffix(pattern, "/...") {
			return r, true
		}
	}
	return rule{}, false
}

func TestImports(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		t.Run(name, func(t *testing.T) {
			r, ok := ruleFor(name)
			if !ok {
				t.Fatalf("package %s has no row in the package map: add one to internal/arch and to docs/ARCHITECTURE.md", name)
			}
			for _, imp := range p.Imports {
				if own, ok := strings.CutPrefix(imp, module); ok && !matchesAny(r.may, own) {
					t.Errorf("%s imports %s, which its row does not allow", name, own)
				}
				if matchesAny(r.not, imp) {
					t.Errorf("%s imports %s, which its row forbids", name, imp)
				}
				for lib, owners := range adapters {
					if matches(lib, imp) && !slices.Contains(owners, name) {
						t.Errorf("%s imports %s; only %v may name that technology", name, imp, owners)
					}
				}
			}
			for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
				own, ok := strings.CutPrefix(imp, module)
				if !ok {
					continue
				}
				crosses := strings.HasPrefix(name, "scheduler") && matches("agent/...", own) ||
					strings.HasPrefix(name, "agent") && matches("scheduler/...", own)
				if crosses {
					t.Errorf("the tests of %s import %s: scheduler and agent meet in api only", name, own)
				}
			}
		})
	}
}

// TestEveryPackageHasDoc checks that each package says what it is in doc.go,
// or in main.go for commands.
func TestEveryPackageHasDoc(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 {
			continue // tests only, behind a build tag
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		file := "doc.go"
		if !slices.Contains(p.GoFiles, file) {
			file = "main.go"
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: no doc.go (or main.go) that can be read: %v", name, err)
			continue
		}
		if f.Doc == nil || len(f.Doc.Text()) < 40 {
			t.Errorf("%s/%s: the package comment is missing or says too little", name, file)
		}
	}
}

// TestPackageNames keeps meaningless and shadowing names out.
func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "types", "helpers", "helper", "misc", "http", "net", "errors", "log", "time"}
	for _, p := range listPackages(t) {
		if base := filepath.Base(p.ImportPath); slices.Contains(banned, base) {
			t.Errorf("package %s: the name %q says nothing or shadows the standard library", p.ImportPath, base)
		}
	}
}
