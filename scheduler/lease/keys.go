package lease

import "sync"

// keys lets only one caller at a time claim under an idempotency key. Without
// it the second of two equal requests, sent at once, could find the pool empty
// because of the first.
type keys struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is released
}

func newKeys() *keys { return &keys{held: map[string]chan struct{}{}} }

// hold takes key, which release gives back, or returns a channel that is closed
// once the present holder has done so. The empty key is free for all.
func (k *keys) hold(key string) (release func(), held <-chan struct{}) {
	if key == "" {
		return func() {}, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if other, ok := k.held[key]; ok {
		return nil, other
	}
	mine := make(chan struct{})
	k.held[key] = mine
	return func() {
		k.mu.Lock()
		delete(k.held, key)
		k.mu.Unlock()
		close(mine)
	}, nil
}
