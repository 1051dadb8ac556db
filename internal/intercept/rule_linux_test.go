package intercept

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TestRule holds the rule as the kernel gets it; the test in a network
// namespace (tag e2e) shows that it does what it says.
func TestRule(t *testing.T) {
	got := Redirect{Metadata: netip.MustParseAddrPort("169.254.169.254:80"), ProxyPort: 8000, ProxyUID: 1501}.expressions()
	uid := binary.NativeEndian.AppendUint32(nil, 1501)
	want := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{6}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{169, 254, 169, 254}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 80}},
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: uid},
		&expr.Immediate{Register: 1, Data: []byte{0x1f, 0x40}},
		&expr.Redir{RegisterProtoMin: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorsNameWhatIsMissing(t *testing.T) {
	for err, want := range map[error]string{
		unix.EPERM:           "NET_ADMIN",
		unix.EPROTONOSUPPORT: "nft_redir",
		unix.ENOENT:          "nft_redir",
		unix.EBUSY:           unix.EBUSY.Error(),
	} {
		got := explain(err)
		if got == nil || !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v is explained as %v, want %s in it", err, got, want)
		}
	}
	if err := explain(nil); err != nil {
		t.Errorf("success is explained as %v", err)
	}
}
