package httpd

import (
	"strings"
	"time"
)

// maxWait is how long an acquire may wait in line: longer than a restore
// takes, shorter than what load balancers cut off.
const maxWait = 60 * time.Second

// parseWait returns the wait preference of Prefer fields (RFC 7240), capped to
// maxWait. A preference that makes no sense counts as not sent, which is what
// the RFC asks for; of several the first counts.
func parseWait(fields []string) (time.Duration, bool) {
	for _, preference := range splitUnquoted(strings.Join(fields, ","), ',') {
		// What follows a semicolon are parameters; wait has none.
		name, value, _ := strings.Cut(splitUnquoted(preference, ';')[0], "=")
		if strings.EqualFold(strings.TrimSpace(name), "wait") {
			return parseSeconds(unquote(strings.TrimSpace(value)))
		}
	}
	return 0, false
}

// parseSeconds parses digits of any number.
func parseSeconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	var d time.Duration
	for _, digit := range s {
		d = min(d*10+time.Duration(digit-'0')*time.Second, maxWait)
	}
	return d, true
}

// splitUnquoted splits s at separators that are not inside a quoted string.
// It returns at least one part.
func splitUnquoted(s string, separator byte) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++ // the next character stands for itself
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

// unquote returns what a quoted string stands for, and any other word as it is.
func unquote(s string) string {
	inner, ok := strings.CutPrefix(s, `"`)
	if !ok {
		return s
	}
	inner, ok = strings.CutSuffix(inner, `"`)
	if !ok {
		return s // never closed; digits it is not
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}
