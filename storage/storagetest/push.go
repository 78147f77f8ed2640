package storagetest

import (
	"fmt"
	"strings"
	"testing"

	"balcony/storage"
	"balcony/xmpp/ext/push"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"mellium.im/xmpp/jid"
)

// registration is one of the service and node.
func registration(service, node, resource, options string) push.Registration {
	r := push.Registration{Service: jid.MustParse(service), Node: node, Resource: resource}
	if options != "" {
		r.Options = []byte(options)
	}
	return r
}

// pushes checks the registrations of an account, and returns them with their ids.
func pushes(t testing.TB, db *storage.DB, j jid.JID, want ...push.Registration) []push.Registration {
	t.Helper()
	got, err := db.PushRegistrations(withLimit(t), j)
	must(t, err)
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(push.Registration{}, "ID"), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b jid.JID) bool { return a.Equal(b) })); d != "" {
		t.Errorf("push registrations (-want +got):\n%s", d)
	}
	for i := range got {
		if got[i].ID <= 0 || i > 0 && got[i].ID <= got[i-1].ID {
			t.Errorf("ids do not grow: %+v", got)
		}
	}
	return got
}

func testPush(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	pushes(t, db, j)
	const form = "<x xmlns='jabber:x:data' type='submit'><field var='secret'><value>ä</value></field></x>"
	a := registration("push.example", "a", "phone", form)
	b := registration("push.example", "b", "tablet", "")
	c := registration("user@push.example/Res ource", "a", "phone", form)
	d := registration("push.example", "", "phone", "")
	for _, r := range []push.Registration{a, b, c, d} {
		must(t, db.EnablePush(ctx, j, r))
	}
	before := pushes(t, db, j, a, b, c, d)
	pushes(t, db, other)

	// XEP-0357 §5: the last request counts.
	a.Resource, a.Options = "new phone", nil
	must(t, db.EnablePush(ctx, j, a))
	after := pushes(t, db, j, b, c, d, a)
	must(t, db.RemovePush(ctx, j, before[0].ID)) // that request was replaced
	pushes(t, db, j, b, c, d, a)
	must(t, db.RemovePush(ctx, other, after[0].ID))
	pushes(t, db, j, b, c, d, a)
	must(t, db.RemovePush(ctx, j, after[0].ID))
	pushes(t, db, j, c, d, a)

	// XEP-0357 §6.
	must(t, db.EnablePush(ctx, other, a))
	must(t, db.DisablePush(ctx, j, a.Service, "a"))
	pushes(t, db, j, c, d)
	must(t, db.DisablePush(ctx, j, a.Service, "nobody"))
	pushes(t, db, j, c, d)
	must(t, db.EnablePush(ctx, j, b))
	must(t, db.DisablePush(ctx, j, a.Service, ""))
	pushes(t, db, j, c)
	pushes(t, db, other, a)

	// An id is not given twice, even when its registration was the last one.
	id := pushes(t, db, other, a)[0].ID
	must(t, db.RemovePush(ctx, other, id))
	must(t, db.EnablePush(ctx, other, a))
	if again := pushes(t, db, other, a)[0].ID; again == id {
		t.Errorf("id %d was given twice", id)
	}
	long := registration("push.example", strings.Repeat("n", 100_000), "phone", strings.Repeat("f", 100_000))
	must(t, db.EnablePush(ctx, other, long))
	pushes(t, db, other, a, long)
	must(t, db.DisablePush(ctx, other, long.Service, long.Node))
	pushes(t, db, other, a)
}

func testPushBound(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	var all []push.Registration
	for i := range Limits.PushRegistrations + 2 {
		r := registration("push.example", fmt.Sprint(i), "phone", "")
		all = append(all, r)
		must(t, db.EnablePush(ctx, j, r))
		must(t, db.EnablePush(ctx, other, r))
		if i == 2 {
			must(t, db.EnablePush(ctx, j, all[0])) // it is in use
		}
	}
	pushes(t, db, j, append([]push.Registration{all[0]}, all[3:]...)...)
	pushes(t, db, other, all[2:]...)
}
