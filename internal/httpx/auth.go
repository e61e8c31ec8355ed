package httpx

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/boss/demo-multiplexer/api"
)

// minSecret is how many characters a secret has at least: 128 bits in base64.
const minSecret = 22

// ReadSecret reads a token from a file that nobody but its owner and group
// may read. Errors never show the content.
func ReadSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("the secret in %s can be read by everybody; chmod 600 it", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if len(secret) < minSecret {
		return "", fmt.Errorf("the secret in %s has fewer than %d characters; make one with: head -c 32 /dev/urandom | base64 > FILE", path, minSecret)
	}
	return secret, nil
}

// SameSecret compares in constant time.
func SameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// RequireToken lets only those through who show the token. Nobody can show an
// empty one.
func (a *Adapter) RequireToken(token string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return a.Handle(func(w http.ResponseWriter, r *http.Request) error {
			scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			if token == "" || !strings.EqualFold(scheme, "Bearer") || !SameSecret(strings.TrimSpace(shown), token) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="demo-multiplexer"`)
				return api.Errorf(api.CodeUnauthenticated, "this needs a token; send Authorization: Bearer TOKEN")
			}
			next.ServeHTTP(w, r)
			return nil
		})
	}
}

// TrustedProxies are the peers whose X-Forwarded-For is believed.
type TrustedProxies []netip.Prefix

// ParseTrustedProxies parses prefixes such as 10.0.0.0/8.
func ParseTrustedProxies(prefixes []string) (TrustedProxies, error) {
	var t TrustedProxies
	for _, p := range prefixes {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, fmt.Errorf("trusted proxy: %w", err)
		}
		t = append(t, prefix)
	}
	return t, nil
}

func (t TrustedProxies) contains(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Client returns the address of the client: the peer's, or, where the peer is
// trusted, the rightmost address in X-Forwarded-For that is not. Everything
// further left could have been made up by the client.
func (t TrustedProxies) Client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	client, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	client = client.Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && t.contains(client); i-- {
		hop, err := parseHop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = hop.Unmap()
	}
	return client.String()
}

// parseHop parses an address. Some load balancers add the client's port.
func parseHop(s string) (netip.Addr, error) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr(), nil
	}
	return netip.ParseAddr(s)
}
