package entrapg_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/entrapg/entrapg"
)

func TestConfig_DSNThatPgxMisreadsIsConfigError(t *testing.T) {
	clearSettings(t)
	for _, test := range []struct{ dsn, setting, want string }{
		{"", "dsn", "set the variable that holds the DSN"},
		{" \n", "dsn", "set the variable that holds the DSN"},
		{"\ufeff", "dsn", "set the variable that holds the DSN"},
		{"user=app dbname=shop", "host", "no host is set"},
		{"postgres:///shop", "host", "no host is set"},
		{"Host=h;Port=5432;Username=u;Password=hunter2", "dsn", "ADO.NET"},
		{"host=h;port=5432;username=u;password=hunter2", "dsn", "ADO.NET"},
		{"host='h;password=hunter2'", "dsn", "ADO.NET"},
		{"User Id=u;Password=hunter2;Host=h", "dsn", "ADO.NET"},
		{"Data Source=h;Password=hunter2", "dsn", "ADO.NET"},
		{"Driver={PostgreSQL};Server=h;Pwd=hunter2", "dsn", "ODBC"},
		{"pgx5://u:hunter2@h/db", "dsn", "postgres:// URL"},
		{"postgresql+psycopg://u:hunter2@h/db?a=b", "dsn", "postgres:// URL"},
		{"Host=h", "Host", "lower case"},
		{"host=h Username=u", "Username", "use user"},
		{"host=h username=u", "username", "use user"},
		{"host=h ssl=true", "ssl", "sslmode"},
		{"postgres://alice@contoso.com@" + azureName + "/shop", "dsn", "alice%40contoso.com"},
		{"postgres://alice@contoso.com:hunter2@h/shop", "dsn", "%40"},
		{"postgres://a:hun@ter2@h/shop?entra_credential=none", "dsn", "%40"},
		{"postgres://app/slots/s@h/shop", "dsn", "%2F"},
		{`"postgres://app:hunter2@h/shop"`, "dsn", "quotation marks"},
		{"'host=h'\n", "dsn", "quotation marks"},
		{"host=h sslmode=verify_full", "sslmode", `"verify_full"; use verify-full`},
		{"postgres://h/?sslmode=Require", "sslmode", "use verify-full, which is the default, verify-ca or require"},
		{
			"host=h entra_credential=managedidentity entra_client_id=shop-api", "entra_client_id",
			`"shop-api" is not a client ID, which is a GUID`,
		},
		{"host=h entra_tenant_id=contoso", "entra_tenant_id", "a GUID or a domain"},
	} {
		_, err := entrapg.PoolConfig(test.dsn)
		var config *entrapg.ConfigError
		switch {
		case runtime.GOOS == "windows" && test.setting == "host": // pgx's default is not a socket
		case !errors.As(err, &config) || config.Setting != test.setting || !strings.Contains(err.Error(), test.want):
			t.Errorf("%q: got %v, want %s: %s", test.dsn, err, test.setting, test.want)
		case strings.Contains(err.Error(), "ter2"):
			t.Errorf("%q: the error contains a part of the password: %v", test.dsn, err)
		}
	}
}

func TestConfig_SpaceAroundDSNIsIgnored(t *testing.T) {
	clearSettings(t)
	for _, dsn := range []string{
		"postgres://app@db.example.com/shop\n", " postgres://app@db.example.com/shop", "\ufeffpostgres://app@db.example.com/shop\r\n",
		"postgres://db.example.com/shop?user=app\n", "\nhost=db.example.com user=app dbname=shop\n",
		"\ufeffhost=db.example.com user=app dbname=shop",
	} {
		config, err := configOf(t, dsn)
		if err != nil {
			t.Errorf("%q: %v", dsn, err)
			continue
		}
		if config.Host != "db.example.com" || config.User != "app" || config.Database != "shop" {
			t.Errorf("%q: host %q, user %q, database %q", dsn, config.Host, config.User, config.Database)
		}
		if len(config.RuntimeParams) > 0 {
			t.Errorf("%q: %v", dsn, config.RuntimeParams)
		}
	}
	for _, dsn := range []string{"host=db.example.com user=app\\ ", "postgres://app%20@db.example.com"} {
		if config, err := configOf(t, dsn); err != nil || config.User != "app " {
			t.Errorf("%q: user %q, error %v", dsn, config.User, err)
		}
	}
}
