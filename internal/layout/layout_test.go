package layout

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/spillway-go/spillway"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
}

// list runs go list over patterns.
func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Standard"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p pkg
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// Imports point one way: littles <- feedback <- limiter <- interceptors.
func TestImportsPointOneWay(t *testing.T) {
	order := []string{"littles", "feedback", "limiter", "interceptors"}
	for i, name := range order {
		pkgs := list(t, module+"/"+name)
		self := pkgs[len(pkgs)-1]
		for _, above := range order[i+1:] {
			if slices.Contains(self.Deps, module+"/"+above) {
				t.Errorf("%s depends on %s", name, above)
			}
		}
	}
}

// littles knows only the standard library; feedback only littles and go-concurrency-limits besides.
func TestThePureCoreHasFewDependencies(t *testing.T) {
	allowed := map[string][]string{
		"littles":  {module + "/littles"},
		"feedback": {module + "/", "github.com/platinummonkey/go-concurrency-limits/core"},
	}
	for name, prefixes := range allowed {
		for _, p := range list(t, module+"/"+name) {
			if !p.Standard && !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(p.ImportPath, prefix) }) {
				t.Errorf("%s depends on %s", name, p.ImportPath)
			}
		}
	}
}

// littles and feedback read no clock and start no goroutine: time comes as an argument.
func TestThePureCoreReadsNoClock(t *testing.T) {
	for _, name := range []string{"littles", "feedback"} {
		pkgs := list(t, module+"/"+name)
		self := pkgs[len(pkgs)-1]
		for _, file := range self.GoFiles {
			out, err := exec.Command("grep", "-nE", `time\.(Now|Since|Until|After|AfterFunc|Tick|NewTimer|NewTicker|Sleep)\(|^\s*go (func|[a-z])`, self.Dir+"/"+file).CombinedOutput()
			if err == nil {
				t.Errorf("%s/%s reads a clock or starts a goroutine:\n%s", name, file, out)
			}
		}
	}
}
