package main

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A rig is a server under load.
type rig struct {
	*load
	server *entrapgtest.Server
	role   string
}

// startRig starts a load on server, as an application with a role of its name. With
// expiries, the server can reject tokens that expire on their way to it.
func startRig(
	ctx context.Context, server *entrapgtest.Server, dsn string, app *entrapgtest.Principal, expiries, overHTTP bool,
	opts ...entrapg.Option,
) (*rig, error) {
	if err := server.CreateRole(ctx, "", app); err != nil {
		return nil, err
	}
	credential := azcore.TokenCredential(app)
	checks := &checker{expiries: expiries}
	if overHTTP {
		checks.slack = 2 * time.Second // azidentity retries with pauses
		var err error
		if credential, err = secretCredential(server.Tenant, app); err != nil {
			return nil, err
		}
	}
	dsn = fmt.Sprintf("%s&connect_timeout=%d", dsn, int(connectTimeout.Seconds()))
	l, err := startLoad(ctx, checks, dsn, server.AdminDSN(), "ledger of "+app.Name, credential, opts...)
	if err != nil {
		return nil, err
	}
	return &rig{load: l, server: server, role: app.Name}, nil
}

func secretCredential(tenant *entrapgtest.Tenant, app *entrapgtest.Principal) (azcore.TokenCredential, error) {
	options := tenant.ClientOptions()
	options.Retry = policy.RetryOptions{MaxRetries: 2, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}
	return azidentity.NewClientSecretCredential(tenant.ID, app.ClientID, app.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
}

// expose injects a fault and waits until every worker has recovered.
func (r *rig) expose(ctx context.Context, f *fault) (effect, error) {
	began, from := time.Now(), time.Now()
	if f.untilToken {
		from = r.connector.Stats().TokenExpiry
	}
	requests, failures := r.server.Tenant.Requests(), r.checker.failures()
	r.connects.newLap()

	r.checker.begin(f, from)
	seen := func() effect {
		n := effect{
			requests: r.server.Tenant.Requests() - requests,
			slowest:  r.connects.slowestOfLap(),
		}
		for pool, causes := range r.checker.failures() {
			if more := sum(causes) - sum(failures[pool]); more > 0 {
				n.failures += more
				n.pools++
			}
		}
		for _, login := range r.server.Logins() {
			if login.Code != "" && login.Time.After(began) {
				n.rejected++
			}
		}
		return n
	}
	err := r.apply(ctx, f)
	// On a busy machine, the fault takes effect later.
	for end := time.Now().Add(10 * time.Second); err == nil && !f.hadEffect(seen()) && time.Now().Before(end); {
		err = sleep(ctx, 50*time.Millisecond)
	}
	r.server.SetFaults(entrapgtest.Faults{})
	r.checker.end()
	r.recover(ctx, f)
	return seen(), err
}

// apply activates a fault for as long as it lasts.
func (r *rig) apply(ctx context.Context, f *fault) error {
	r.server.SetFaults(f.faults)
	if f.inject != nil {
		if err := f.inject(ctx, r.server); err != nil {
			return err
		}
	}
	if f.untilToken {
		for time.Until(r.connector.Stats().TokenExpiry) > 0 { // a request may still have been in flight
			if err := sleep(ctx, time.Until(r.connector.Stats().TokenExpiry)); err != nil {
				return err
			}
		}
	}
	return sleep(ctx, f.lasts)
}

// recover waits until every worker has written once more.
func (r *rig) recover(ctx context.Context, f *fault) {
	before := make([]int64, len(r.ledger.writers))
	for i, w := range r.ledger.writers {
		_, before[i] = w.acknowledged()
	}
	ended := time.Now()
	for i, w := range r.ledger.writers {
		for {
			if _, n := w.acknowledged(); n > before[i] || sleep(ctx, 10*time.Millisecond) != nil {
				break
			}
			if time.Since(ended) > patience+f.within+r.checker.longestStall() {
				r.checker.addViolation("%s: worker %d on %s has stopped writing", f.name, w.worker, w.pool)
				return
			}
		}
	}
}

// sessions counts the sessions of the role on the real server.
func (r *rig) sessions(ctx context.Context, adminDSN string) (n int, err error) {
	admin, err := pgx.Connect(ctx, adminDSN)
	if err != nil {
		return 0, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	err = admin.QueryRow(ctx, "select count(*) from pg_stat_activity where usename = $1", r.role).Scan(&n)
	return n, err
}

// noSessions waits until the role has no session on the real server.
func (r *rig) noSessions(ctx context.Context, adminDSN string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		n, err := r.sessions(ctx, adminDSN)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("%d sessions are left", n)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
