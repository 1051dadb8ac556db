package intercept

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName = "podkey_proxy"
	chainName = "output"

	// priority puts the chain before every other that translates destinations
	// (-100): the first translation counts, and a service mesh that redirects
	// all that a pod sends would otherwise take the metadata address too. It
	// has to be after connection tracking (-200).
	priority = -110
)

// Offsets that do not move: the destination address in an IPv4 header, the
// destination port in a TCP header.
const (
	destinationAddress = 16
	destinationPort    = 2
)

// Install puts the redirection in place of an earlier one. It needs the
// capability NET_ADMIN in the network namespace, and no other.
func (r Redirect) Install() error {
	conn, err := nftables.New()
	if err != nil {
		return explain(err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	// To delete what is not there is an error, to add what is there is none.
	// All five are one transaction.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: chainName, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRef(priority),
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.expressions()})
	return explain(conn.Flush())
}

// expressions is the rule, which nft would write so:
//
//	ip daddr 169.254.169.254 tcp dport 80 meta skuid != 1501 redirect to :8000
func (r Redirect) expressions() []expr.Any {
	const register = 1
	ip := r.Metadata.Addr().As4()
	compare := func(op expr.CmpOp, data []byte) expr.Any {
		return &expr.Cmp{Op: op, Register: register, Data: data}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: destinationAddress, Len: 4, DestRegister: register},
		compare(expr.CmpOpEq, ip[:]),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2, DestRegister: register},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, r.Metadata.Port())),
		// The kernel keeps the user in its own byte order.
		&expr.Meta{Key: expr.MetaKeySKUID, Register: register},
		compare(expr.CmpOpNeq, binary.NativeEndian.AppendUint32(nil, r.ProxyUID)),
		&expr.Immediate{Register: register, Data: binary.BigEndian.AppendUint16(nil, r.ProxyPort)},
		&expr.Redir{RegisterProtoMin: register},
	}
}

// explain says what of a container or a node is missing.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("redirect the metadata address: the capability NET_ADMIN is missing, add it to the container's securityContext.capabilities: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("redirect the metadata address: this node's kernel lacks a part of nftables (nf_tables, nft_chain_nat, nft_redir): %w", err)
	}
	return fmt.Errorf("redirect the metadata address: %w", err)
}
