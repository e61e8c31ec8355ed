package session

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valkey-io/valkey-go"
)

// Policy says what becomes of rate limits while Valkey is down.
type Policy string

// The policies.
const (
	// PolicyLocal lets each scheduler count for itself, with the same limits.
	// A client that spreads its requests over n schedulers then gets n quotas.
	PolicyLocal Policy = "local"
	// PolicyRefuse answers that nothing can be acquired for now.
	PolicyRefuse Policy = "refuse"
)

const (
	// callTimeout bounds what a request waits for Valkey. It answers within a
	// millisecond; later than this the visitor is better served without it.
	callTimeout = 50 * time.Millisecond
	// connectTimeout bounds connecting and trying while Valkey is down, when
	// no request waits for it.
	connectTimeout = 500 * time.Millisecond
	// batchTimeout bounds one batch of records.
	batchTimeout = time.Second
	// batchSize is how many records are written at once.
	batchSize = 128

	defaultProbe   = 500 * time.Millisecond
	defaultKept    = time.Hour
	defaultClients = 100_000 // about 200 bytes each
	defaultQueue   = 8192
)

// Options configure a [Valkey].
type Options struct {
	// Addresses of Valkey: one is a single server, several are members of one
	// Valkey cluster.
	Addresses []string
	Username  string
	// PasswordFile is read at each connect, so a new password needs no
	// restart. Password is used where there is no file.
	PasswordFile string
	Password     string

	Limits   Limits
	WhenDown Policy // empty: PolicyLocal
	// Secret keys the hashes of clients. All schedulers share it. Without it
	// whoever reads Valkey can find addresses by trying.
	Secret []byte
	// MaxClients bounds the clients that are counted locally. Zero: 100,000.
	MaxClients int
	// QueueSize bounds the records that wait to be written. Zero: 8192.
	QueueSize int
	// Kept is how long records outlive their demo. Zero: one hour.
	Kept time.Duration
	// ProbeEvery is how often Valkey is tried. Zero: 500 ms.
	ProbeEvery time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics

	// tune changes the client for servers that tests bring along.
	tune func(*valkey.ClientOption)
}

func (o *Options) complete() error {
	if len(o.Addresses) == 0 {
		return errors.New("no address of Valkey")
	}
	if o.PasswordFile != "" && o.Password != "" {
		return errors.New("both a password and a password file for Valkey")
	}
	if o.WhenDown == "" {
		o.WhenDown = PolicyLocal
	}
	if o.WhenDown != PolicyLocal && o.WhenDown != PolicyRefuse {
		return fmt.Errorf("policy %q while Valkey is down: must be local or refuse", o.WhenDown)
	}
	if o.Logger == nil {
		return errors.New("no logger")
	}
	setDefault(&o.MaxClients, defaultClients)
	setDefault(&o.QueueSize, defaultQueue)
	setDefault(&o.Kept, defaultKept)
	setDefault(&o.ProbeEvery, defaultProbe)
	if _, err := o.password(); err != nil {
		return err
	}
	return o.Limits.validate()
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

func (o *Options) password() (string, error) {
	if o.PasswordFile == "" {
		return o.Password, nil
	}
	b, err := os.ReadFile(o.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password of Valkey: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// client returns the settings of the client library. Its pipelining defaults
// are kept: they are worth a factor of three under load.
func (o *Options) client() valkey.ClientOption {
	c := valkey.ClientOption{
		InitAddress:       o.Addresses,
		ForceSingleClient: len(o.Addresses) == 1,
		DisableCache:      true, // nothing is read twice
		DisableRetry:      true, // the breaker decides; a retry would double the wait
		ClientName:        "demo-scheduler",
		ConnWriteTimeout:  batchTimeout, // also ends connections that a partition has made silent
		AuthCredentialsFn: func(valkey.AuthCredentialsContext) (valkey.AuthCredentials, error) {
			password, err := o.password()
			return valkey.AuthCredentials{Username: o.Username, Password: password}, err
		},
	}
	c.Dialer.Timeout = connectTimeout
	if o.tune != nil {
		o.tune(&c)
	}
	return c
}
