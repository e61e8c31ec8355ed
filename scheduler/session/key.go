package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/boss/demo-multiplexer/api"
)

// Keys in Valkey. The braces make Valkey clusters put all keys of one client
// into one slot, which the script needs.
const (
	limitPrefix  = "demo:limit:"
	recordPrefix = "demo:record:"
	probeClient  = "probe" // no hash looks like it
)

// clientKey stands for a client.
type clientKey [sha256.Size]byte

// keyOf hides a client. With a secret nobody who reads Valkey can find the
// address by trying all of them.
func keyOf(secret []byte, client string) clientKey {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(client))
	return clientKey(mac.Sum(nil))
}

func (k clientKey) String() string { return hex.EncodeToString(k[:sha256.Size/2]) }

// limitKeys returns the counters of one client, parallel to ws.
func limitKeys(client string, ws []window) []string {
	keys := make([]string, len(ws))
	for i, w := range ws {
		keys[i] = limitPrefix + "{" + client + "}:" + w.name
	}
	return keys
}

// recordKey hides a lease ID, because it opens the demo.
func recordKey(id api.LeaseID) string {
	sum := sha256.Sum256([]byte(id))
	return recordPrefix + "{" + hex.EncodeToString(sum[:]) + "}"
}
