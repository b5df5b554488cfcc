package entrapg_test

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/entrapg/entrapg"
)

func TestConfig_KeyThatServersDoNotKnowIsConfigError(t *testing.T) {
	clearSettings(t)
	for setting, want := range map[string]string{
		"gssencmode=require":               "TLS",
		"gssdelegation=1":                  "omit it",
		"gsslib=gssapi":                    "omit it",
		"sslcompression=1":                 "omit it",
		"sslcrl=x":                         "VerifyConnection",
		"sslcrldir=x":                      "VerifyConnection",
		"sslkeylogfile=x":                  "KeyLogWriter",
		"load_balance_hosts=random":        "RandomizeHostOrderFunc",
		"tcp_user_timeout=1000":            "keepalives_idle",
		"requirepeer=postgres":             "omit it",
		"requiressl=1":                     "sslmode",
		"scram_client_key=hunter2":         "omit it",
		"scram_server_key=hunter2":         "omit it",
		"oauth_issuer=x":                   "omit it",
		"oauth_client_id=x":                "entra_client_id",
		"oauth_client_secret=hunter2":      "environment",
		"oauth_scope=x":                    "entra_scope",
		"oauth_ca_file=x":                  "omit it",
		"binary_parameters=yes":            "lib/pq",
		"keepalives=on":                    `"on"`,
		"keepalives_idle=-1":               `"-1"`,
		"ssl_min_protocol_version=SSLv3":   "TLSv1.2 or TLSv1.3",
		"ssl_max_protocol_version=TLSv1.1": "TLSv1.2 or TLSv1.3",
		"hostaddr=db.internal":             "IP addresses",
		"hostaddr=192.0.2.1,192.0.2.2":     "an address for each",
		"PORT=1":                           "lower case",
		"ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2": "less than",
	} {
		_, err := configOf(t, "host=db.example.com "+setting)
		var config *entrapg.ConfigError
		if !errors.As(err, &config) || !strings.Contains(" "+setting, " "+config.Setting+"=") ||
			!strings.Contains(config.Problem, want) {
			t.Errorf("%s: got %v, want %q", setting, err, want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error contains the secret: %v", setting, err)
		}
	}
}

func TestConfig_KeyOfLibpqWithoutEffectIsNotSentToServer(t *testing.T) {
	clearSettings(t)
	for setting, want := range map[string]string{
		"gssencmode=disable":                                   "",
		"gssencmode=prefer":                                    "",
		"sslcompression=0 gssdelegation=0 gsslib=''":           "",
		"load_balance_hosts=disable tcp_user_timeout=0":        "",
		"keepalives=1 keepalives_count=3":                      "",
		"ssl_min_protocol_version=TLSv1":                       "",
		"hostaddr=192.0.2.1":                                   "",
		"fallback_application_name=psql":                       "application_name=psql",
		"fallback_application_name=psql application_name=":     "application_name=psql",
		"fallback_application_name=psql application_name=shop": "application_name=shop",
		"client_encoding=auto":                                 "client_encoding=UTF8",
		"client_encoding=LATIN1":                               "client_encoding=LATIN1",
		"TimeZone=UTC search_path=a options='-c geqo=off' statement_timeout=5s": "TimeZone=UTC options=-c geqo=off " +
			"search_path=a statement_timeout=5s",
		"replication=database my.setting=x":                                "my.setting=x replication=database",
		"krbsrvname=postgres sslsni=1 sslcertmode=allow passfile=/nowhere": "",
	} {
		config, err := configOf(t, "host=db.example.com "+setting)
		if err != nil {
			t.Errorf("%s: %v", setting, err)
			continue
		}
		var params []string
		for key, value := range config.RuntimeParams {
			params = append(params, key+"="+value)
		}
		slices.Sort(params)
		if got := strings.Join(params, " "); got != want {
			t.Errorf("%s: sends %q, want %q", setting, got, want)
		}
	}
}

func TestConfig_TLSVersionsAreLimited(t *testing.T) {
	clearSettings(t)
	for dsn, want := range map[string][2]uint16{
		"host=a,b": {0, 0},
		"host=a,b ssl_min_protocol_version=TLSv1.1":                                         {0, 0},
		"host=a,b ssl_min_protocol_version=tlsv1.3":                                         {tls.VersionTLS13, 0},
		"host=a,b ssl_max_protocol_version=TLSv1.2":                                         {0, tls.VersionTLS12},
		"host=a,b entra_credential=none user=u password=p ssl_min_protocol_version=TLSv1.3": {tls.VersionTLS13, 0},
	} {
		config, err := entrapg.PoolConfig(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		configs := []*tls.Config{config.ConnConfig.TLSConfig}
		for _, f := range config.ConnConfig.Fallbacks {
			configs = append(configs, f.TLSConfig)
		}
		for _, c := range configs {
			if c != nil && [2]uint16{c.MinVersion, c.MaxVersion} != want {
				t.Errorf("%s: versions %x to %x", dsn, c.MinVersion, c.MaxVersion)
			}
		}
	}
}

func TestConfig_KeepalivesAreHonored(t *testing.T) {
	clearSettings(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	for dsn, want := range map[string]keepalive{
		"host=h keepalives=0": {},
		"host=h keepalives=1 keepalives_idle=7 keepalives_interval=3 keepalives_count=2": {true, 7, 3, 2},
		"host=h keepalives_idle=9": {true, 9, 15, 9},
	} {
		config, err := configOf(t, dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		conn, err := config.DialFunc(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, supported := keepaliveOf(t, conn)
		conn.Close()
		if supported && got != want {
			t.Errorf("%s: %+v, want %+v", dsn, got, want)
		}
	}
}

// A keepalive has a socket's keepalive settings: whether it sends probes, the times in
// seconds, and the number of probes.
type keepalive struct {
	enabled                bool
	idle, interval, probes int
}
