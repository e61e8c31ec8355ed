package session

import (
	"strings"
	"testing"
)

func TestKeysHideTheClient(t *testing.T) {
	ws := Limits{PerHour: 1, PerDay: 1}.windows()
	secret, foreign := []byte("ours"), []byte("theirs")
	key := keyOf(secret, visitor)
	keys := limitKeys(key.String(), ws)
	if len(keys) != 2 || keys[0] == keys[1] {
		t.Fatalf("keys = %q, want one of each window", keys)
	}
	for _, k := range keys {
		if strings.Contains(k, visitor) || !strings.HasPrefix(k, limitPrefix) {
			t.Errorf("key %q shows the client, or is not below %s", k, limitPrefix)
		}
	}
	// Valkey clusters hash what stands in braces.
	tag := func(s string) string { return s[strings.Index(s, "{") : strings.Index(s, "}")+1] }
	if tag(keys[0]) != tag(keys[1]) {
		t.Errorf("keys %q are in two slots, want one", keys)
	}
	if key != keyOf(secret, visitor) {
		t.Error("a client has two keys, want one")
	}
	if key == keyOf(foreign, visitor) || key == keyOf(nil, visitor) {
		t.Error("the key does not depend on the secret")
	}
	if key == keyOf(secret, other) {
		t.Error("two clients share a key")
	}
	if strings.Contains(key.String(), probeClient) {
		t.Errorf("key %s meets the probe's", key)
	}
}

func TestRecordKeyHidesTheLease(t *testing.T) {
	key := recordKey(leaseID)
	if strings.Contains(key, string(leaseID)) {
		t.Errorf("key %q opens the demo", key)
	}
	if key == recordKey(leaseID+"a") {
		t.Error("two leases share a key")
	}
}
