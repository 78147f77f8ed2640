package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// upgradePrefix begins the name of a task: XEP-0480 §2.1.
const upgradePrefix = "UPGR-"

// UpgradeTasks returns the names of the tasks (XEP-0480 §3) to advertise, strongest first: the same for every stream, as what an account
// lacks is told only to who has logged into it (XEP-0388 §3). There is none for SHA-1, by which nobody would gain.
func (a *Authenticator) UpgradeTasks() []string {
	return []string{upgradePrefix + "SCRAM-SHA-512", upgradePrefix + "SCRAM-SHA-256"}
}

// Upgrades returns those of the requested tasks that the client which has logged in is to perform, one after the other, each once, in the
// order of UpgradeTasks: the account has no verifier for them. There are none after a login with a token, which must not be enough to
// give an account a password. The error is a Failure with temporary-auth-failure, or that of ctx; the login may succeed all the same.
func (e *Exchange) Upgrades(ctx context.Context, requested []string) ([]string, error) {
	if e.account.String() == "" || e.token != nil || len(requested) == 0 {
		return nil, nil
	}
	all, err := e.auth.verifiers(ctx, e.account)
	if err != nil {
		return nil, err
	}
	var tasks []string
	for _, task := range e.auth.UpgradeTasks() {
		if _, has := hashOf(strings.TrimPrefix(task, upgradePrefix)).pick(all); !has && slices.Contains(requested, task) {
			tasks = append(tasks, task)
		}
	}
	return tasks, nil
}

// Upgrade is one upgrade task of a client that has logged in with its password: XEP-0480 §3.
type Upgrade struct {
	exchange *Exchange
	hash     *scramHash
	salt     []byte
}

// Upgrade begins a task, one of Upgrades, when the client has sent <next/> with its name. The error is a Failure with malformed-request
// for what is no task.
func (e *Exchange) Upgrade(task string) (*Upgrade, error) {
	if e.account.String() == "" || e.token != nil || !slices.Contains(e.auth.UpgradeTasks(), task) {
		return nil, failf(malformedRequest, "no such task") // RFC 6120 §6.5.8
	}
	u := &Upgrade{exchange: e, hash: hashOf(strings.TrimPrefix(task, upgradePrefix)), salt: make([]byte, saltSize)}
	rand.Read(u.salt) // never fails
	return u, nil
}

// Salt is the text of <salt/>.
func (u *Upgrade) Salt() string { return base64.StdEncoding.EncodeToString(u.salt) }

// Iterations is the attribute of <salt/>.
func (u *Upgrade) Iterations() int { return u.exchange.auth.cfg.Iterations }

// Finish takes the text of the client's <hash/>, the SaltedPassword in base64, and gives the account the verifier that is made of it. An
// account that has got one meanwhile keeps that. The server cannot know whether it is made of the same password; who sends it has proved
// the account's.
//
// The error is a Failure, or that of ctx: incorrect-encoding and malformed-request for what is no hash, not-authorized when what the
// client proved is not valid any more; with these the login must fail.
func (u *Upgrade) Finish(ctx context.Context, hash string) error {
	salted, err := DecodeData(hash)
	if err != nil {
		return err
	}
	if len(salted) != u.hash.size {
		return failf(malformedRequest, "salted password of %d bytes", len(salted)) // RFC 5802 §3: the output of Hi
	}
	e := u.exchange
	err = e.auth.store.AddVerifier(ctx, e.account, u.hash.verifier(salted, u.salt, u.Iterations()), e.used)
	e.auth.recent.drop(e.account)
	switch {
	case errors.Is(err, ErrOutdated), errors.Is(err, ErrNoAccount):
		return failf(notAuthorized, "account was changed during the login")
	case err != nil:
		return temporary(ctx, "store verifier", err)
	}
	return nil
}
