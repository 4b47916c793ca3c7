package state

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// slowKV lets etcd give up waiting for some transactions, which are then
// written all the same, or not.
type slowKV struct {
	clientv3.KV
	written []bool // one for each transaction to give up, in turn
}

type slowTxn struct {
	clientv3.Txn
	kv *slowKV
}

func (kv *slowKV) Txn(ctx context.Context) clientv3.Txn { return &slowTxn{kv.KV.Txn(ctx), kv} }

func (t *slowTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *slowTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *slowTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *slowTxn) Commit() (*clientv3.TxnResponse, error) {
	if len(t.kv.written) == 0 {
		return t.Txn.Commit()
	}
	written := t.kv.written[0]
	t.kv.written = t.kv.written[1:]
	if written {
		if _, err := t.Txn.Commit(); err != nil {
			return nil, err
		}
	}
	return nil, rpctypes.ErrTimeout
}

// On a host so busy that etcd gives up waiting, an Update still takes effect
// once, and says so.
func TestTimeoutOfTheEmbeddedEtcdIsSettled(t *testing.T) {
	s := openDir(t, t.TempDir())
	kv := &slowKV{KV: s.backend.(*etcd).client.KV}
	s.backend.(*etcd).client.KV = kv
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "goes"}) })
	for i, written := range [][]bool{{true}, {false}, {false, false, true}, {true, true}, {false, false}} {
		kv.written = written
		update(t, s, func(tx *Tx) {
			tx.Add("n", "n", 1)
			widgets.Delete(tx, "goes")
		})
		if got := Count(s.View(), "n", "n"); got != int64(i+1) {
			t.Fatalf("%v: counted %d after %d", written, got, i+1)
		}
	}
	kv.written = []bool{true}
	update(t, s, func(tx *Tx) { tx.Add("n", "n", -Count(tx, "n", "n")) }) // nothing but a deletion
	if got := Count(s.View(), "n", "n"); got != 0 {
		t.Fatalf("counted %d", got)
	}
	same(t, "all", ids(s.View()))
	if err := mirrorsBackend(s); err != nil {
		t.Fatal(err)
	}
}
