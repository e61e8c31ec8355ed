// Package version says which build of demo-multiplexer this is.
package version

import "runtime/debug"

// stamped is set by the linker (-X) for released builds.
var stamped string

// String returns the released version, or the revision that Go recorded, or
// "devel".
func String() string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "devel"
}
